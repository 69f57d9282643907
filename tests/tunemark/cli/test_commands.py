"""The commands as their help shows them: groups of flags, examples that work, completion, and the runs of a store."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tunemark.cli.experiment_arguments import group_settings
from tunemark.cli.main import _COMMANDS, _make_parser, main
from tunemark.experiment import SETTINGS

_ROOT = Path(__file__).parents[3]


def test_every_setting_is_in_one_group_and_the_most_used_are_first() -> None:
    groups = group_settings(SETTINGS)
    assert sorted(s.name for found in groups.values() for s in found) == sorted(s.name for s in SETTINGS)
    first, *others = groups.values()
    assert 8 <= len(first) <= 12
    assert all(others)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_example_of_a_command_is_one_that_it_takes(command: str) -> None:
    module, parser = _make_parser(command)
    assert module.EXAMPLES
    for words, meaning in module.EXAMPLES:
        assert meaning
        _, _, ours = words.partition(f"tunemark {command}")
        # In a shell's substitution, or with its output in a file or another program.
        ours = ours.partition(")")[0] if "$(" in words or "<(" in words else ours
        arguments = shlex.split(ours.partition(" > ")[0].partition(" | ")[0])
        if "--" in arguments:
            arguments = arguments[: arguments.index("--")]
        _, unknown = parser.parse_known_args(arguments)
        assert unknown == []
    assert module.EXAMPLES[0][0] in parser.format_help()


def test_flags_of_other_tools_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, ours in (("--batch-size", "--micro-batch"), ("--seq", "--sequence"), ("--lr=1", "--learning-rate")):
        assert main(["plan", flag]) == 2
        assert f"did you mean '{ours}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "ours"), [("gpu", "--device cuda"), ("GPU", "--device cuda"), ("tpu", "--device xla"), ("hip", "rocm")]
)
def test_other_names_of_devices_are_understood(name: str, ours: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", name]) == 2
    next_line = capsys.readouterr().err.partition("next: ")[2]
    assert ours in next_line
    assert "did you mean 'cpu'" not in next_line


def test_built_in_experiments_are_listed_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "experiments", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"default", "scaling-cpu", "moai-mistral-7b", "moai-simulated"} <= {row["name"] for row in rows}
    assert all(row["description"][-1] in ".?" and Path(row["path"]).is_file() for row in rows)


def test_a_flag_without_effect_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu:1", "--trials", "2", "-o", "report", "--repeats", "1"]
    for command in ("plan", "predict"):
        assert main([command, *words]) == 0
        assert f"{command} does not use --trials, --repeats, --output: " in capsys.readouterr().err


def test_an_experiment_file_may_hold_what_a_plan_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('device = "cpu:1"\nrepeats = 2\noutput = "out"\n')
    assert main(["plan", str(file)]) == 0
    assert "does not use" not in capsys.readouterr().err


def test_sizes_that_fit_are_an_answer_beside_those_that_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--model", "mistral-7b", "--device", "H100", "--strategy", "auto", "--size"]
    assert main([*words, "1,2"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) < 20
    assert "| H100 | 1 | does not fit |" in printed.out
    assert main([*words, "1,2", "--verbose"]) == 0
    assert "| layout | micro-batch |" in capsys.readouterr().out
    assert main([*words, "1"]) == 2
    assert "cannot be laid out" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-V", "version", "--version"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out.startswith("tunemark 0.")


def test_no_words_name_the_first_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err.partition("begin with:")[2]
    assert [line.split()[1] for line in said.splitlines() if line.startswith("  tunemark ")] == ["plan", "run", "list"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tunemark pl", {"plan"}),
        ("tunemark plan --micro", {"--micro-batch"}),
        ("tunemark plan --model mistral-7b,mistral-t", {"mistral-7b,mistral-tiny"}),
        ("tunemark run --precision bf16-", set()),
        ("tunemark report --language k", {"ko"}),
    ],
)
def test_a_shell_completes_commands_flags_and_names(line: str, expected: set[str], tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "fish", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "tunemark"], env={**os.environ, **asked}, cwd=tmp_path, timeout=60, check=True
    )
    found = {each.partition("\t")[0].strip() for each in answer.read_text().split("\n")} - {""}
    assert found == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "tunemark" in capsys.readouterr().out


def _report(folder: Path) -> Path:
    """A report of three runs, made of one of the example's."""
    whole = json.loads((_ROOT / "reports/example/runs.jsonl").read_text().split("\n")[0])
    runs = [("aaaa1111", "none", 100.0), ("bbbb2222", "ddp", 300.0), ("cccc3333", "fsdp", 200.0)]
    folder.mkdir()
    with (folder / "runs.jsonl").open("w") as file:
        for run_id, strategy, rate in runs:
            estimate = {**whole["tokens_per_s"], "value": rate}
            print(
                json.dumps({**whole, "run_id": run_id, "strategy_requested": strategy, "tokens_per_s": estimate}),
                file=file,
            )
    return folder


def test_runs_are_listed_sorted_and_filtered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(_report(tmp_path / "report"))
    assert main(["list", "runs", report, "--sort=-tokens_per_s"]) == 0
    assert [row.split()[1] for row in capsys.readouterr().out.splitlines()[2:]] == ["bbbb2222", "cccc3333", "aaaa1111"]
    assert (
        main(["list", "runs", report, "--where", "strategy_requested=*d*p", "--sort", "strategy_requested", "--json"])
        == 0
    )
    assert [json.loads(line)["strategy_requested"] for line in capsys.readouterr().out.splitlines()] == ["ddp", "fsdp"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list", "runs", "{}", "--where", "mode=x"], "did you mean 'model'"),
        (["list", "runs", "{}", "--where", "ddp"], "FIELD=VALUE"),
        (["list", "models", "--sort", "name"], "list runs"),
        (["list", "runs", "{}/nothing"], "there is no folder"),
        (["show", "{}"], "name one"),
        (["open", "{}/nothing"], "there is no"),
    ],
)
def test_bad_words_are_refused(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = str(_report(tmp_path / "report"))
    assert main([each.format(report) for each in words]) == 2
    assert expected in capsys.readouterr().err


def test_one_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _report(tmp_path / "report")
    main(["show", f"{report}:bbbb"])
    shown = capsys.readouterr().out
    assert "trains at 300 " in shown
    assert "trains at 100 " not in shown
    main(["show", f"{report}:bbbb", "--json"])
    assert json.loads(capsys.readouterr().out)["run_id"] == "bbbb2222"


def test_the_newest_report_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        page = tmp_path / name / "report.html"
        page.parent.mkdir()
        page.write_text("")
        os.utime(page, (1e9 - age, 1e9 - age))
    assert main(["open"]) == 0
    assert opened == [(tmp_path / "new/report.html").as_uri()]
    assert capsys.readouterr().out == "new/report.html\n"
