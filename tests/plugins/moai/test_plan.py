"""Planning for MoAI on a machine that has none: what sizes are made of, and what fits."""

import json
import subprocess
import sys

import pytest

from tunemark.cli.main import main
from tunemark_moai.flavors import make_accelerator, memory_sort_key

_TOML = "moai-mistral-7b"
_MODEL = ["--model", "mistral-7b", "--dataset", "synthetic"]


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    """A machine without the platform's tools."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TUNEMARK_MOAI_SIM", raising=False)


def plans(capsys, *words):
    assert main(["plan", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_all_documented_sizes_are_planned_smallest_first(capsys):
    rows = plans(capsys, *_MODEL, "--device", "moai:all")
    assert [row["parts"] for row in rows] == [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 192, 384]
    assert [row["chips"] for row in rows][:4] == [None, 1, 2, 4]
    assert [row["nodes"] for row in rows][3:8] == [1, None, 2, 3, 4]
    assert {row["part_memory_bytes"] for row in rows} == {65520 << 20}
    assert not any(row["is_present"] for row in rows)
    # 7,241,732,096 parameters of 16 bytes.
    assert {row["memory_floor_bytes"] for row in rows} == {16 * 7_241_732_096}
    assert rows[7]["memory_floor_distributed_bytes"] == 16 * 7_241_732_096 // 32


def test_the_table_says_what_fits(capsys):
    assert main(["plan", *_MODEL, "--device", "moai:Small.64GB,Medium.128GB"]) == 0
    said = capsys.readouterr()
    small, medium = (line for line in said.out.splitlines() if ".64GB |" in line or ".128GB |" in line)
    assert "107.9 GiB: does not fit" in small
    assert "53.96 GiB: fits" in medium
    assert "can be planned, not run" in said.err


def test_the_tutorials_experiment_is_planned(capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # its tokenizer is not asked for here
    rows = plans(capsys, _TOML)
    found = [(row["size"], row["strategy"], row["steps"], row["tokens_per_step"]) for row in rows]
    assert found == [
        ("4xLarge.2048GB", "none", 100, 256 * 2048),
        ("4xLarge.2048GB", "auto", 100, 256 * 2048),
        ("8xLarge.4096GB", "none", 100, 256 * 2048),
        ("8xLarge.4096GB", "auto", 100, 256 * 2048),
    ]
    assert {(row["global_batch"], row["learning_rate"], row["batching"], row["epochs"]) for row in rows} == {
        (256, 2e-6, "pad", 2)
    }


def test_what_a_size_is_made_of_can_be_declared(capsys):
    (row,) = plans(capsys, *_MODEL, "--device", "moai:xLarge.512GB", "--chip", "mi300x", "--chips", "2")
    assert (row["chip"], row["chips"]) == ("MI300X", 2)
    assert row["peak_flops"]["bf16"] == 2 * 1307.4e12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "moai:xLarge.512GB", "--chip", "MI300X"], "--chip has no effect without --chips"),
        (["--device", "moai:xLarge.512GB", "--chip", "MI300Y", "--chips", "2"], "no chip named 'MI300Y'"),
        (["--device", "moai:xLarge.512GB,Small.64GB", "--chip", "MI300X", "--chips", "2"], "several sizes"),
        (["--device", "moai:Huge.1GB"], "has no size 'Huge.1GB'"),
        (["--device", "moai"], "there is no moai on this machine"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(capsys, words, said):
    assert main(["plan", *_MODEL, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_planned_size_is_not_run(capsys, tmp_path):
    words = ["--store", str(tmp_path / "runs"), "--device", "moai:Small.64GB"]
    assert main(["run", "--dataset", "synthetic", *words]) == 2
    assert "is not on this machine" in capsys.readouterr().err
    assert list((tmp_path / "runs").glob("*")) == []


def test_flavors_of_other_sites_have_no_hardware_and_no_peak():
    for name in ("micro", "4xlarge", "flavor-default-8"):
        size = make_accelerator(name, is_present=True)
        assert (size.chip, size.chips, size.memory_bytes, dict(size.peak_flops)) == ("unknown", None, None, {})
        assert "no document" in (size.source or "")
    assert make_accelerator("4XLARGE.2048GB", is_present=False).name == "4xLarge.2048GB"


def test_a_simulated_size_has_no_peak():
    size = make_accelerator("4xLarge.2048GB", is_present=True, is_simulated=True)
    assert (dict(size.peak_flops), size.is_simulated, size.can_calibrate) == ({}, True, False)


def test_sizes_sort_by_memory_and_unknown_ones_come_last():
    names = ["micro", "8xLarge.4096GB", "flavor-default-16", "Small.64GB", "flavor-default-8", "1.5xLarge.768GB"]
    assert sorted(names, key=memory_sort_key) == [
        "Small.64GB",
        "flavor-default-8",
        "1.5xLarge.768GB",
        "flavor-default-16",
        "8xLarge.4096GB",
        "micro",
    ]


def test_planning_imports_neither_torch_nor_a_terminal_library():
    code = "import sys; from tunemark.cli.main import main; main(sys.argv[1:]); "
    code += "print('torch' in sys.modules, 'pexpect' in sys.modules)"
    words = [sys.executable, "-c", code, "plan", *_MODEL, "--device", "moai:all", "--json"]
    assert subprocess.run(words, capture_output=True, text=True).stdout.splitlines()[-1] == "False False"
