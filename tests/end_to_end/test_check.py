"""`tunemark check` on the command line: a table with reasons, JSON, and an exit code that a pipeline can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]


def _checks(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    answer = json.loads(done.stdout)
    assert answer["passed"] + answer["failed"] + answer["skipped"] == len(answer["checks"]), done.stderr
    return {(check["name"], check["subject"]): check for check in answer["checks"]}


def test_a_sound_plugin_passes(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    only = "import,interface,lazy,speed,quiet,hooks,name,facts,capabilities,tokenizer,recount"
    done = tunemark("check", "tunemark-example", "--only", only, "--json", environment=example_plugin)
    checks = _checks(done)
    assert done.returncode == 0, done.stdout
    assert {c["outcome"] for c in checks.values()} == {"passed"}
    assert "8,304 parameters" in checks["facts", "model toy-lm"]["reason"]
    # 48 documents: bytes, and one id before and behind each.
    assert "1493 tokens of 48 documents" in checks["recount", "dataset toy-text"]["reason"]


def test_a_dataset_is_checked_with_its_options(tunemark: Tunemark, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one two three\n" * 300)
    done = tunemark("check", "text:path=t.txt:document=line", "--only", "facts,recount", "--json")
    checks = _checks(done)
    assert (done.returncode, {c["outcome"] for c in checks.values()}) == (0, {"passed"}), done.stdout
    assert tunemark("check", "text:paht=t.txt").returncode == 2
    assert "takes none" in tunemark("check", "mistral-tiny:path=t.txt").stderr


def test_a_name_that_nothing_has_is_the_users_to_mend(tunemark: Tunemark) -> None:
    done = tunemark("check", "mistrall")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'mistral'?" in done.stderr
    assert tunemark("check", "mistral", "--only", "nonsense").returncode == 2


# Each fault: the check that finds it, what it is found in, and the words that name it.
FAULTS = {
    "a wrong number of parameters": (
        "parameters",
        "model unsound-parameters",
        "8,304 parameters, what was built has 8,563",
    ),
    "wrong FLOPs": ("flops", "model unsound-flops", "+100.00 %"),
    "labels shifted twice, by the scores": ("alignment", "model unsound-shifted", "labels are shifted twice"),
    "labels shifted twice, by the labels": ("alignment", "model unsound-relabelled", "labels are shifted twice"),
    "a frozen layer": (
        "gradients",
        "model unsound-frozen",
        "frozen, though all parameters are to be trained: embedding",
    ),
    "a layer behind which no gradient flows": ("gradients", "model unsound-detached", "no gradient reaches"),
    "padding counted by the worker": ("tokens", "model unsound-counts", "padding is counted as content"),
    "padding in a dataset": ("facts", "dataset unsound-padded", "padding is counted as content"),
    "padding by a tokenizer": ("tokenizer", "model unsound-padding", "padding is counted as content"),
    "weights that no seed sets": ("determinism", "model unsound-random", "something is drawn"),
    "examples that no seed sets": ("facts", "dataset unsound-moving", "its examples differ each time"),
    "a child that a runtime leaves": ("processes", "model unsound-child", "time.sleep(60)"),
    "a child that a hook leaves": ("processes", "plugin unsound-loud", "time.sleep(60)"),
    "attention across documents": ("packing", "model unsound-crossing", "must stay within batch.document_ids"),
    "sight of the future": ("alignment", "model unsound-future", "see what they have to predict"),
    "a capability with other arguments": (
        "capabilities",
        "strategy unsound-clip",
        "`clip` is called with (parameters, max_norm), which (parameters) does not accept",
    ),
    "torch among the facts": ("lazy", "plugin unsound-eager", "import torch ("),
    "a name that is taken": ("name", "model toy-lm", "example, unsound claim it"),
    "print to standard output": ("quiet", "plugin unsound-loud", "import prints 15 bytes"),
    "a slow hook": ("speed", "plugin unsound-loud", "tunemark_datasets takes 1"),
    "an import that ends the process": ("import", "plugin unsound-leaving", "it: exit code 3"),
    "an import that fails": ("import", "plugin unsound-gone", "no_such_module_of_anybody"),
    "a newer interface": ("interface", "plugin unsound-newer", "it needs plugin interface 99.0"),
    "an answer that is nonsense": ("hooks", "plugin unsound-nonsense", "which is not a Model"),
    "no answer": ("hooks", "plugin unsound-nothing", "returned None, not a sequence of Dataset"),
}


@pytest.fixture(scope="module")
def faults(
    unsound_plugins: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tunemark_cache: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """One kit over all faults, without the runs that need a process each."""
    variables = {**os.environ, **unsound_plugins, "TUNEMARK_CACHE": str(tunemark_cache), "OMP_NUM_THREADS": "1"}
    only = sorted({check for check, _, _ in FAULTS.values()})
    command = [sys.executable, "-m", "tunemark", "check", "tunemark-unsound", "--json", "--only", ",".join(only)]
    folder = tmp_path_factory.mktemp("faults")
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return _checks(done)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(fault: str, faults: dict[tuple[str, str], dict[str, Any]]) -> None:
    check, subject, words = FAULTS[fault]
    assert faults[check, subject]["outcome"] == "failed", faults[check, subject]
    assert words in faults[check, subject]["reason"]


def test_a_sound_model_among_them_passes(faults: dict[tuple[str, str], dict[str, Any]]) -> None:
    sound = {check: row["outcome"] for (check, subject), row in faults.items() if subject == "model unsound-sound"}
    assert set(sound.values()) == {"passed"}
    assert {"parameters", "flops", "alignment", "packing", "determinism", "processes"} <= set(sound)


def test_nothing_that_they_have_started_is_left(faults: dict[tuple[str, str], dict[str, Any]]) -> None:
    reasons = " ".join(row["reason"] for row in faults.values() if row["name"] == "processes")
    pids = [part.split(")")[0] for part in reasons.split("(pid ")[1:]]
    assert len(pids) >= 2
    assert not [pid for pid in pids if Path("/proc", pid).exists() and "Z" not in _state(pid)]


def _state(pid: str) -> str:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_lying_synchronise_is_found_by_a_run(tunemark: Tunemark, unsound_plugins: dict[str, str]) -> None:
    done = tunemark("check", "unsound-lying", "--only", "honesty", "--json", environment=unsound_plugins)
    (check,) = _checks(done).values()
    assert (done.returncode, check["outcome"]) == (1, "failed")
    assert "synchronize does not wait" in check["reason"]


def test_another_interpreter_checks_the_runtimes(
    tunemark: Tunemark, example_plugin: dict[str, str], tmp_path: Path
) -> None:
    """Of a device whose torch lives elsewhere; what is no interpreter with torch is the user's to mend."""
    python = tmp_path / "other"
    python.write_text(f'#!/bin/sh\necho asked >> {tmp_path}/log\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    words = ["check", "toy", "--only", "capabilities", "--json", "--python"]
    done = tunemark(*words, str(python), environment=example_plugin)
    assert {c["outcome"] for c in _checks(done).values()} == {"passed"}
    # For its packages, and to import the runtimes.
    assert (tmp_path / "log").read_text() == "asked\nasked\n"
    refused = tunemark(*words, "no-such-python", environment=example_plugin)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'no-such-python' is not an executable file" in refused.stderr


def test_a_broken_plugin_is_listed_with_its_reason_and_the_rest_goes_on(
    tunemark: Tunemark, unsound_plugins: dict[str, str]
) -> None:
    done = tunemark("list", "plugins", "--json", environment=unsound_plugins)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert "no_such_module_of_anybody" in rows["unsound-gone"]["broken"]
    assert "it needs plugin interface 99.0" in rows["unsound-newer"]["broken"]
    assert rows["torch"]["broken"] is None
    assert rows["torch"]["seconds"] < 1


@pytest.mark.full
def test_all_of_a_sound_plugin_passes(tunemark: Tunemark, example_plugin: dict[str, str]) -> None:
    for name in ("toy-lm", "toy-async", "toy-wrap", "toy-text"):
        done = tunemark("check", name, "--json", environment=example_plugin)
        checks = _checks(done)
        assert done.returncode == 0, done.stdout
        assert {c["outcome"] for c in checks.values()} == {"passed"}
