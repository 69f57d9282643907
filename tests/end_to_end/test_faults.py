"""Every fault that can be planted in a plugin is found, named, and the sweep goes on. Nothing measured is lost."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

# The step, counted from 0, in which tests/faulty_plugin fails, and so the number of steps before it.
_WHEN = 6
_WORDS = ["--dataset", "toy-text", "--device", "cpu:1", "--precision", "fp32", "--sequence", "32", "--micro-batch", "2"]
# sgd, so that weights without a gradient do not decay; one window a step on the CPU.
_WORDS += ["--optimizer", "sgd", "--learning-rate", "0.1", "--no-measure-peak", "--json", "--repeats", "1"]
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
    rows = _rows(done)
    assert [row["model"] for row in rows] == names, done.stderr
    return Sweep(done, {row["model"][len("faulty-") :]: row for row in rows}, folder / "runs")


def _rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Standard output, every line of it. NaN is Python's alone: a reader in another language would refuse the row."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]


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


@pytest.mark.parametrize(("faults", "code"), [(["drift"], 0), (["drift", "double-count"], 1)])
def test_a_wrong_number_decides_the_exit_code_and_is_found_again_in_the_store(
    sweep: Sweep, faulty_plugin: dict[str, str], tunemark_cache: Path, faults: list[str], code: int
) -> None:
    """In the sweep itself the failures stand for all: here are the wrong numbers alone, and nothing is run again."""
    before = sorted(sweep.folder.glob("*/*/plan.json"))
    models = ",".join(f"faulty-{fault}" for fault in faults)
    variables = {**os.environ, **faulty_plugin, "TUNEMARK_CACHE": str(tunemark_cache)}
    command = [sys.executable, "-m", "tunemark", "run", "--model", models, *_WORDS, *_STEPS]
    done = subprocess.run(command, cwd=sweep.folder.parent, env=variables, capture_output=True, text=True)
    assert _rows(done) == [sweep.rows[fault] for fault in faults]
    assert done.returncode == code, done.stderr
    assert sorted(sweep.folder.glob("*/*/plan.json")) == before


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
    # What was timed before the failure is still told: two steps are the warm-up, 2 x 32 slots are each of the others.
    assert row["steps_measured"] == _WHEN - 2
    assert row["tokens"]["slots"] == (_WHEN - 2) * 2 * 32
    assert row["tokens_per_s"]["value"] > 0


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
    # Kept out of the result, not swallowed: it may be the only word on why a plugin fails.
    assert "a plugin that prints while it is imported" in sweep.done.stderr
    assert "a worker that prints" in "".join(p.read_text() for p in sweep.folder.glob("*/*/stdout.log"))


@pytest.mark.parametrize(
    ("models", "statuses", "codes"),
    [("faulty-too-large", ["oom"], {4}), ("faulty-too-large,faulty-sound", ["oom", "ok"], {0, 1, 3})],
)
def test_out_of_memory_counts_only_where_nothing_else_worked(
    tunemark: Tunemark, faulty_plugin: dict[str, str], models: str, statuses: list[str], codes: set[int]
) -> None:
    # As many steps as elsewhere: of a shorter timed part a moment in which another process runs is a large share.
    done = tunemark("run", "--model", models, *_WORDS, *_STEPS, environment=faulty_plugin)
    rows = _rows(done)
    assert [row["status"] for row in rows] == statuses
    # The status (4) of what found no memory does not stand for the sweep: another row fits, whose own verdict does.
    assert rows[0]["verdict"] == "unknown"
    assert done.returncode in codes, done.stderr


def test_what_a_hook_prints_is_no_result(tunemark: Tunemark, faulty_plugin: dict[str, str]) -> None:
    done = tunemark(
        "run", "--model", "faulty-talkative", *_WORDS, "--warmup", "0", "--steps", "1", environment=faulty_plugin
    )
    assert "a hook that prints" not in done.stdout
    (row,) = _rows(done)
    assert row["status"] == "ok"
    for hook in ("record", "audit"):
        assert f"a hook that prints: {hook}" in done.stderr


def test_a_plugin_that_ends_the_process_is_named_and_the_others_stay(
    tunemark: Tunemark, faulty_plugin: dict[str, str]
) -> None:
    """A script that was made a plugin may call sys.exit; with its code 0 nothing would have been asked, and done."""
    done = tunemark("list", "models", environment={**faulty_plugin, "TUNEMARK_FAULTY_LEAVES": "1"})
    assert "mistral-tiny" in done.stdout
    assert "'faulty' (tunemark-faulty) is not used: SystemExit" in done.stderr


def test_a_strategy_with_other_gradients_is_invalid_under_verify(
    tunemark: Tunemark, faulty_plugin: dict[str, str]
) -> None:
    words = ["--model", "faulty-sound", "--strategy", "faulty-gradients", *_WORDS, "--warmup", "2", "--steps", "8"]
    done = tunemark("run", *words, "--verify", environment=faulty_plugin)
    (row,) = _rows(done)
    assert (done.returncode, row["verdict"]) == (1, "invalid"), done.stderr
    assert "strategy-differs" in _rules(row, "invalid")
    assert row["strategy_selected"] == {"strategy": "faulty-gradients"}


@pytest.mark.full
def test_a_late_rank_is_waited_for_by_the_other_and_that_is_communication(
    tunemark: Tunemark, faulty_plugin: dict[str, str], tmp_path: Path
) -> None:
    words = ["--model", "faulty-sound", "--strategy", "faulty-late", *_WORDS, "--device", "cpu:2", "--oversubscribe"]
    done = tunemark("run", *words, "--warmup", "2", "--steps", "16", "--breakdown", environment=faulty_plugin)
    _, parted = _rows(done)
    assert (parted["status"], parted["breakdown"]) == ("ok", True), done.stderr
    waits = []
    for rank in range(2):
        (path,) = tmp_path.glob(f"runs/*-{parted['run_id']}/*/records.{rank}.jsonl")
        marks = [json.loads(line)["marks"] for line in path.read_text().splitlines() if '"kind":"step"' in line]
        steps = [sum(end - begin for (_, begin), (_, end) in zip(m[::2], m[1::2], strict=True)) for m in marks[2:]]
        waits.append(statistics.median(steps))
    # The one that is waited for waits for nobody. Cores that others use make both wait longer.
    assert waits[0] - waits[1] > 0.8 * 0.05
    assert 0.4 * 0.05 < parted["breakdown_s"]["communication"] < sum(parted["breakdown_s"].values())
