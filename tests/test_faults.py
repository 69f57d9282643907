"""Every fault that can be planted in a plugin is found, named, and the sweep goes on. Nothing measured is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

# The step, counted from 0, in which tests/faulty_plugin fails, and so the number of steps before it.
_WHEN = 6
_WORDS = ["--dataset", "toy-text", "--device", "cpu:1", "--precision", "fp32", "--sequence", "32", "--micro-batch", "2"]
# sgd, so that weights without a gradient do not decay; one window a step on the CPU.
_WORDS += ["--optimizer", "sgd", "--learning-rate", "0.1", "--no-calibrate", "--json", "--repeats", "1"]
_STEPS = ["--warmup", "2", "--steps", "24"]
_FAULTS = ("slow-step", "drift", "double-count", "nan", "frozen")
_FAILURES = ("shape", "illegal", "too-large", "exit", "killed")


class Sweep(NamedTuple):
    """rows: by fault. folder: the store."""

    done: subprocess.CompletedProcess[str]
    rows: dict[str, dict[str, Any]]
    folder: Path


@pytest.fixture(scope="module")
def sweep(faulty_plugin: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tunemark_cache: Path) -> Sweep:
    """One sweep over all faults, the sound model last."""
    folder = tmp_path_factory.mktemp("faults")
    names = [f"faulty-{name}" for name in (*_FAILURES, *_FAULTS, "sound")]
    variables = {**os.environ, **faulty_plugin, "TUNEMARK_CACHE": str(tunemark_cache)}
    command = [sys.executable, "-m", "tunemark", "run", "--model", ",".join(names), *_WORDS, *_STEPS]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["model"] for row in rows] == names, done.stderr
    return Sweep(done, {row["model"][len("faulty-") :]: row for row in rows}, folder / "runs")


def _rules(row: dict[str, Any], severity: str) -> set[str]:
    return {finding["rule"] for finding in row["findings"] if finding["severity"] == severity}


def _records(sweep: Sweep, fault: str, kind: str) -> list[dict[str, Any]]:
    (path,) = sweep.folder.glob(f"faulty-{fault}-*/*/records.0.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


@pytest.mark.parametrize(
    ("fault", "severity", "rule"),
    [
        ("slow-step", "note", "slow-step"),
        ("drift", "suspect", "drift"),
        ("double-count", "invalid", "tokens-disagree"),
        ("nan", "invalid", "loss-not-finite"),
        ("frozen", "invalid", "weights-unchanged"),
    ],
)
def test_a_wrong_number_is_found(sweep: Sweep, fault: str, severity: str, rule: str) -> None:
    row = sweep.rows[fault]
    assert row["status"] == "ok"
    assert rule in _rules(row, severity)
    # A busy machine may add to what is found, and never takes away.
    allowed = {"note": {"valid", "suspect", "unknown"}, "suspect": {"suspect"}, "invalid": {"invalid"}}
    assert row["verdict"] in allowed[severity]


def test_a_sound_model_has_none_of_these_findings(sweep: Sweep) -> None:
    row = sweep.rows["sound"]
    assert row["status"] == "ok"
    assert not _rules(row, "invalid")


def test_the_recount_is_of_the_tokens_that_were_trained_on(sweep: Sweep) -> None:
    (finding,) = [f for f in sweep.rows["double-count"]["findings"] if f["rule"] == "tokens-disagree"]
    tokens = sweep.rows["double-count"]["tokens"]
    assert f"{tokens['slots']:,} slots tokens were recorded" in finding["message"]
    assert f"the token file has {tokens['slots'] // 2:,}" in finding["message"]


@pytest.mark.parametrize(
    ("fault", "status", "evidence"),
    [
        ("shape", "error", "mat1 and mat2 shapes cannot be multiplied"),
        # Where memory is accessed it is not exhausted, whatever the message shares with one of that.
        ("illegal", "error", "illegal memory access"),
        ("too-large", "oom", "1125899906842624 bytes"),
        ("exit", "error", "exit code 7"),
        ("killed", "killed", "SIGKILL"),
    ],
)
def test_a_failure_is_a_row_that_keeps_every_finished_step(
    sweep: Sweep, fault: str, status: str, evidence: str
) -> None:
    row = sweep.rows[fault]
    assert (row["status"], row["verdict"]) == (status, "unknown")
    assert evidence in " ".join(finding["message"] for finding in row["findings"])
    assert len(_records(sweep, fault, "step")) == _WHEN


def test_memory_that_could_not_be_had_is_a_number(sweep: Sweep) -> None:
    assert sweep.rows["too-large"]["requested_bytes"] == 1 << 50


def test_the_sweep_goes_on_and_its_exit_code_is_of_the_worst(sweep: Sweep) -> None:
    assert sweep.rows["sound"]["status"] == "ok"
    assert sweep.done.returncode == 4
    assert "Traceback" not in sweep.done.stderr.replace(_traces(sweep), "")


def _traces(sweep: Sweep) -> str:
    """What the workers themselves wrote."""
    return "".join(path.read_text() for path in sweep.folder.glob("*/*/stderr.log"))


def test_what_plugins_and_workers_print_is_no_result(sweep: Sweep) -> None:
    assert "prints" not in sweep.done.stdout
    assert "a worker that prints" in "".join(p.read_text() for p in sweep.folder.glob("*/*/stdout.log"))


@pytest.mark.parametrize(("models", "codes"), [("faulty-too-large", {4}), ("faulty-too-large,faulty-sound", {0, 3})])
def test_out_of_memory_counts_only_where_nothing_else_worked(
    tunemark: Tunemark, faulty_plugin: dict[str, str], models: str, codes: set[int]
) -> None:
    done = tunemark("run", "--model", models, *_WORDS, "--warmup", "0", "--steps", "8", environment=faulty_plugin)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["oom", "ok"][: len(rows)]
    # The failed row's verdict is unknown, which may stand for the sweep; its status may not.
    assert done.returncode in codes


def test_a_strategy_with_other_gradients_is_invalid_under_verify(
    tunemark: Tunemark, faulty_plugin: dict[str, str]
) -> None:
    words = ["--model", "faulty-sound", "--strategy", "faulty-gradients", *_WORDS, "--warmup", "2", "--steps", "8"]
    done = tunemark("run", *words, "--verify", environment=faulty_plugin)
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert (done.returncode, row["verdict"]) == (1, "invalid"), done.stderr
    assert "strategy-differs" in _rules(row, "invalid")
    assert row["strategy_selected"] == {"strategy": "faulty-gradients"}
