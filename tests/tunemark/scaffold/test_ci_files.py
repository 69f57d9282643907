"""`tunemark new ci`: the workflows are YAML whose own commands measure, judge and keep a baseline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunemark.cli.main import main

_ACTION = yaml.safe_load((Path(__file__).parents[3] / "action/action.yml").read_text())
_RUNS = Path(__file__).parents[3] / "reports/example/runs.jsonl"


def _new(service: str, folder: Path) -> Any:
    assert main(["new", "ci", service, "-o", str(folder)]) == 0
    name = {"github": ".github/workflows/tunemark.yml", "gitlab": "tunemark.gitlab-ci.yml"}[service]
    return yaml.safe_load((folder / name).read_text())


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_files_are_written_once(service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _new(service, tmp_path)
    (tmp_path / "tunemark.toml").write_text("mine")
    assert main(["new", "ci", service, "-o", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "tunemark.toml").read_text() == "mine"


def test_an_unknown_service_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "ci", "githup", "-o", str(tmp_path)]) == 2
    assert "did you mean 'github'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_experiment_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _new("github", tmp_path)
    assert main(["plan", str(tmp_path / "tunemark.toml"), "--device", "cpu:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "mistral-tiny"


def _store(folder: Path, *series: tuple[float, ...]) -> None:
    """Report folders of the example's first run, with these rates of attempts, each series at another hour."""
    whole = json.loads(_RUNS.read_text().split("\n")[0])
    for hour, rates in enumerate(series):
        rows = [
            {**whole["each_attempt"][0], "name": f"{folder.name}-{hour}-{i}", "tokens_per_s": rate}
            for i, rate in enumerate(rates)
        ]
        # Figures that would contradict these rates are unknown.
        other = ("tokens", "slot_tokens_per_s", "trained_tokens_per_s", "tokens_per_s_per_chip", "mfu")
        mean = {**whole["tokens_per_s"], "value": sum(rates) / len(rates)}
        run = {**whole, "each_attempt": rows, "attempts": len(rows), "findings": [], "verdict": "valid"}
        run.update(dict.fromkeys(other), tokens_per_s=mean)
        (folder / str(hour)).mkdir(parents=True)
        (folder / str(hour) / "runs.jsonl").write_text(json.dumps(run) + "\n")


_GATED = (((1000.0, 1001.0, 999.0), 0, "PASS"), ((800.0, 801.0, 799.0), 1, "FAIL"), ((700.0, 1400.0), 0, "no verdict"))


@pytest.mark.parametrize(
    ("written_by", "rates", "code", "said"),
    [
        *(("new ci", *case) for case in _GATED),
        *(pytest.param("action", *case, marks=[pytest.mark.full] if case[1] == 0 else []) for case in _GATED),
    ],
)
def test_the_gate_step_passes_fails_and_lets_no_verdict_through(
    written_by: str, rates: tuple[float, ...], code: int, said: str, tmp_path: Path
) -> None:
    """The step's own script, with the stores replaced by reports of known rates."""
    steps = _ACTION["runs"]["steps"]
    if written_by == "new ci":
        steps = _new("github", tmp_path)["jobs"]["gate"]["steps"]
    (step,) = (s for s in steps if s.get("name") == "gate")
    _store(tmp_path / "tunemark-baseline", (1000.0, 1002.0, 998.0), (1001.0, 999.5, 1000.5))
    _store(tmp_path / "tunemark-runs", rates)
    baselines = "--baseline tunemark-baseline/0 --baseline tunemark-baseline/1"
    script = step["run"].replace("--baseline tunemark-baseline", baselines)
    script = script.replace('--baseline "$BASELINE"', baselines).replace('"$RUNS"', "tunemark-runs/0")
    script = script.replace("tunemark-runs ", "tunemark-runs/0 ")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tunemark").write_text(f'#!/bin/sh\nexec {sys.executable} -m tunemark "$@"\n')
    (tools / "tunemark").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "BASELINE": "tunemark-baseline",
                   "CHANGE": "5", "GITHUB_OUTPUT": "outputs", "GITHUB_STEP_SUMMARY": "summary"}  # fmt: skip
    done = subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    assert (tmp_path / "gate.md").read_text().startswith("<!-- tunemark gate -->")
    assert "<testsuites" in (tmp_path / "gate.xml").read_text()
    if written_by == "action":
        assert (tmp_path / "outputs").read_text() == f"outcome={said.lower()}\n"
        assert (tmp_path / "summary").read_text() == (tmp_path / "gate.md").read_text()


def test_the_action_says_nothing_that_a_shell_would_take_for_code() -> None:
    """Inputs reach scripts as variables: a title of a pull request in a script would be a way in."""
    assert _ACTION["runs"]["using"] == "composite"
    for step in _ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
