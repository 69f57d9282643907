"""`tunemark list devices --backend moai --from`: one shape for all tools, and a reason where there is no table."""

import io
import json
import stat
import sys

import pytest

from tunemark.cli.main import main
from tunemark.errors import TunemarkError
from tunemark.plugin import ReadsToolOutput
from tunemark_moai.device_status import read_devices
from tunemark_moai.plugin import MoaiDevice

DEVICE_KEYS = [
    "id",
    "default",
    "name",
    "flavor",
    "memory_used_mib",
    "memory_used_fraction",
    "memory_total_mib",
    "utilization",
]


@pytest.fixture
def listed(printed, tmp_path, capsys):
    """The exit code, standard output and standard error for one fixture."""

    def run(name, *flags):
        source = tmp_path / "saved.txt"
        source.write_text(printed(name), newline="\r\n")
        code = main(["list", "devices", "--backend", "moai", "--from", str(source), *flags])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("name", "tool", "versions", "devices", "processes"),
    [
        ("moreh-smi-0.8", "moreh-smi", ("0.8.0", None), [7], 1),
        ("moreh-smi-22.7-idle", "moreh-smi", ("22.7.0", None), [23], 0),
        ("moreh-smi-22.10", "moreh-smi", ("22.10.1", None), [3055], 1),
        ("moreh-smi-22.10-grid", "moreh-smi", ("22.10.2", "23.3.0"), [1733], 0),
        ("moreh-smi-23.9", "moreh-smi", ("23.9.0", "23.8.1"), [1, 2, 5], 1),
        ("moreh-smi-23.9-newlines-lost", "moreh-smi", ("23.9.0", "23.9.0"), [0, 1], 1),
        ("moreh-smi-24.5", "moreh-smi", ("24.5.0", "24.5.0"), [0, 1], 2),
        ("moreh-smi-24.5-80-columns", "moreh-smi", ("24.5.0", "24.5.0"), [0, 1], 2),
        ("moreh-smi-24.5-flavor", "moreh-smi", (None, "24.5.0"), [0], 0),
        ("moreh-smi-25.1", "moreh-smi", ("25.1.202", "25.1.201"), [0], 0),
        ("moreh-smi-token", "moreh-smi", (None, None), [0, 4], 0),
        ("moreh-smi-device-add", "moreh-smi", (None, None), [0, 1], 0),
        ("moreh-smi-p", "moreh-smi", (None, None), [0, 1, 2], 0),
        ("ap-smi-25.4", "ap-smi", ("25.4.3005", "25.5.3005"), [0, 1], 0),
    ],
)
def test_every_layout_has_the_same_keys(listed, name, tool, versions, devices, processes):
    code, out, err = listed(name, "--json")
    shown = json.loads(out)
    assert (code, err) == (0, "")
    assert list(shown) == ["tool", "version_current", "version_latest", "devices", "processes"]
    assert (shown["tool"], shown["version_current"], shown["version_latest"]) == (tool, *versions)
    assert [device["id"] for device in shown["devices"]] == devices
    assert all(list(device) == DEVICE_KEYS for device in shown["devices"])
    assert len(shown["processes"]) == processes
    assert all(list(p) == ["device", "job_id", "pid", "command", "memory_mib"] for p in shown["processes"])
    assert "c29t" not in out


def test_unknown_is_null_and_zero_is_zero(listed):
    _, out, _ = listed("moreh-smi-24.5", "--json")
    assert json.loads(out)["devices"][1]["utilization"] == 0.0
    _, out, _ = listed("ap-smi-25.4", "--json")
    assert json.loads(out)["devices"] == [
        dict(zip(DEVICE_KEYS, [0, None, "2048", "flavor-default-16", None, 0.29, None, 0.97], strict=True)),
        dict(zip(DEVICE_KEYS, [1, None, "2050", "flavor-default-8", None, None, None, None], strict=True)),
    ]
    _, out, _ = listed("moreh-smi-p", "--json")
    assert json.loads(out)["devices"][1] == dict(
        zip(DEVICE_KEYS, [1, None, "rack07:7", None, None, None, None, 0.98], strict=True)
    )


def test_without_json_there_are_tables(listed):
    code, out, _ = listed("moreh-smi-23.9")
    assert code == 0
    assert out.startswith("moreh-smi, version 23.9.0, latest 23.8.1\n\n| id | default | name ")
    assert "| 2 | yes | Some AI Device | 8xLarge.4096GB | 56 |  | 4193280 | 29.0 |\n" in out
    assert "| 1 | no | Some AI Device |  |  |  |  |  |\n" in out
    assert "| 2 | 910044 | 181818 | python train.py / tee log " in out


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("moreh-smi-reset", 'a reply of moreh-smi without a table\n  why:  line 2: "Device release failed.'),
        ("moreh-smi-help", 'the help of a tool, not its status\n  why:  line 3: "Usage: moreh-smi'),
        ("moreh-smi-version", "the version of a tool, not its status"),
        ("switch-model-24.5", 'a menu of flavors, which shows no accelerators\n  why:  line 2: "Current Some'),
        ("switch-model-no-token", "it has no token\n  why:  line 2:"),
        ("training-24.5", "the output of a training program\n  why:  line 2:"),
    ],
)
def test_where_there_is_no_table_the_reason_is_named(listed, name, complaint):
    code, out, err = listed(name, "--json")
    assert (code, out) == (2, "")
    assert complaint in err
    assert "expected a table of `moreh-smi` or `ap-smi`" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the text is empty"),
        ("\r\n \r\n", "the text is empty"),
        ("bash: moreh-smi: command not found\n", "not installed where it was called"),
        ("hello\n", '(?s)there is no table.*line 1: "hello"'),
        ("+-----+\n", "border of a table, but no header"),
        ("| Device | Job ID | PID | Process | Memory Usage |\n+--+\n+--+\n+--+\n", "(?s)of processes, but none of"),
        ("|  ID  |  Name  |\n|  1  |  a  |\n", "without a known header"),
    ],
)
def test_other_texts_are_refused(text, complaint):
    with pytest.raises(TunemarkError, match=complaint):
        read_devices(text)


def test_standard_input_is_read_and_needs_no_text_encoding(printed, monkeypatch, capsys):
    content = b"\xff\xfe a broken prompt\n" + printed("ap-smi-25.4").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["list", "devices", "--backend", "moai", "--from", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tool"] == "ap-smi"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["devices", "--from", "x"], "--from needs --backend"),
        (["devices", "--backend", "moia", "--from", "x"], "did you mean 'moai'"),
        (["devices", "--backend", "cpu", "--from", "x"], "device 'cpu' reads no status tool's output"),
        (["devices", "--backend", "moai", "--from", "/nowhere/at/all"], "cannot read '/nowhere/at/all'"),
        (["models", "--backend", "moai"], "--backend does not apply to models"),
    ],
)
def test_wrong_flags_say_what_would_be_right(words, complaint, capsys):
    assert main(["list", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_machine_without_the_tools_has_no_moai_and_no_error(tmp_path):
    moai = MoaiDevice(str(tmp_path))
    assert isinstance(moai, ReadsToolOutput)
    assert moai.accelerators() == []
    planned = moai.accelerator("small.64gb")
    assert planned
    assert (planned.name, planned.is_present, planned.parts) == ("Small.64GB", False, 1)
    with pytest.raises(TunemarkError, match="no MoAI accelerator"):
        moai.occupy(planned, tmp_path)


def _install(folder, name, program):
    (folder / name).write_text(f"#!/bin/sh\n{program}\n")
    (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)


def test_the_flavors_of_a_machine_are_its_sizes(tmp_path, printed):
    (tmp_path / "said").write_text(printed("moreh-smi-24.5"))
    _install(tmp_path, "moreh-smi", f"/bin/cat {tmp_path}/said")
    moai = MoaiDevice(str(tmp_path))
    assert [(a.name, a.chip, a.chips, a.memory_bytes) for a in moai.accelerators()] == [
        ("xLarge.512GB", "MI250", 4, 524160 * 2**20),
        ("4xLarge.2048GB", "MI250", 16, 2096640 * 2**20),
    ]
    assert moai.default_size() == "xLarge.512GB"
    size = moai.accelerator("4XLARGE.2048gb")
    assert size
    assert size.name == "4xLarge.2048GB"
    assert moai.accelerator("Small.64GB") is None


def test_another_tool_of_the_same_name_is_told_by_its_output(tmp_path):
    _install(tmp_path, "moreh-smi", "echo usage: moreh-smi -glx_reset")
    with pytest.raises(TunemarkError, match="help of a tool"):
        MoaiDevice(str(tmp_path)).accelerators()
