"""Whole runs on a simulated MoAI platform: what is measured, what is told apart, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunemark_moai.simulator.cli import main as simulator

_SMALL = ["--model", "mistral-tiny", "--dataset", "synthetic", "--sequence", "32", "--micro-batch", "1"]
_SMALL += ["--warmup", "1", "--repeats", "1", "--target-interval", "0", "--json", "--device", "moai"]

Runs = Callable[..., tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Bring a simulated platform up, or with `set` change the one that is up."""

    def bring(version: str, *words: str) -> None:
        folder = tmp_path / "sim"
        assert simulator(["up", "--version", version, "--dir", str(folder), *words]) == 0
        monkeypatch.setenv("TUNEMARK_MOAI_SIM", str(folder))
        monkeypatch.setenv("TUNEMARK_MOAI_SAMPLE_S", "0.5")
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return bring


@pytest.fixture
def runs(tmp_path: Path, tunemark_cache: Path) -> Runs:
    def run(*words: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        done = subprocess.run(_command(*words), cwd=tmp_path, capture_output=True, text=True, env=_env(tunemark_cache))
        return done, [json.loads(line) for line in done.stdout.splitlines()]

    return run


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tunemark", "run", *_SMALL, *words]


def _env(cache: Path) -> dict[str, str]:
    return {**os.environ, "TUNEMARK_CACHE": str(cache)}


def _state(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "sim" / "state.json").read_text())
    return found


def test_sizes_and_strategies_are_measured_one_by_one_and_the_flavor_is_put_back(
    site: Callable[..., None], runs: Runs, tmp_path: Path
) -> None:
    site("24.2.0", "--flavor", "Medium.128GB", "queue_s=0.4", "compile_ms=49233", "cost_ms=1909")
    manual = "manual:num_stages=4:num_micro_batches=8:activation_recomputation=true:distribute_parameter=true"
    done, rows = runs("--size", "4xLarge.2048GB", "--strategy", f"none,auto,{manual}", "--steps", "6", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert all(row["simulated"] and row["mfu"] is None for row in rows)
    assert all(0.3 < row["queue_s"] < 3 for row in rows)
    assert [row["search_s"] for row in rows] == [None, 51.142, 51.142]
    none, auto, pinned = (row["strategy_selected"] for row in rows)
    assert none == {"strategy": "none"}
    assert (auto["num_stages"], auto["num_micro_batches"], auto["distribute_param"]) == (2, 16, True)
    assert (pinned["num_stages"], pinned["num_micro_batches"], pinned["recomputation"]) == (4, 8, True)
    watched = rows[1]["environment"]["watched"]
    states = [each["state"] for each in watched["states"]]
    assert states == ["requesting", "waiting in the queue", "preparing", "running"]
    assert (watched["nodes"], watched["samples_failed"]) == (4, 0)
    assert rows[0]["peak_memory_bytes"] is not None
    assert _state(tmp_path)["devices"][0]["flavor"] == "Medium.128GB"
    assert _state(tmp_path)["jobs"] == []
    report = (tmp_path / "out" / "report.md").read_text()
    assert "simulated" in report


@pytest.mark.full
def test_the_platform_without_a_tool_to_switch_is_told_by_a_variable(site: Callable[..., None], runs: Runs) -> None:
    site("25.5.3005")
    done, rows = runs("--size", "flavor-default-16", "--strategy", "auto:num_stages=1", "--steps", "2")
    assert done.returncode in (0, 3), done.stderr
    assert [(row["size"], row["status"]) for row in rows] == [("flavor-default-16", "ok")]
    assert rows[0]["strategy_selected"]["distribute_low_prec_param"] is True


@pytest.mark.full
def test_memory_that_is_not_there_is_a_row_with_its_bytes(site: Callable[..., None], runs: Runs) -> None:
    site("24.5.0", "device_memory_bytes=629145600")
    done, rows = runs("--size", "4xLarge.2048GB", "--strategy", "none,auto", "--steps", "6")
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows] == ["oom", "ok"]
    assert rows[0]["requested_bytes"] > rows[0]["available_bytes"] == 629145600
    assert rows[0]["tokens_per_s"] is None


@pytest.mark.full
def test_a_lost_connection_keeps_the_steps_before_it(site: Callable[..., None], runs: Runs, tmp_path: Path) -> None:
    site("24.5.0", "lost_at_step=5")
    done, rows = runs("--size", "xLarge.512GB", "--steps", "8", "--window", "0.001")
    assert done.returncode == 4, done.stderr
    assert rows[0]["status"] == "error"
    assert "The connection to the server has been lost" in rows[0]["each_attempt"][0]["evidence"]
    assert 1 <= rows[0]["steps_measured"] <= 3
    assert _state(tmp_path)["devices"][0]["flavor"] == "Small.64GB"


@pytest.mark.full
def test_a_queue_longer_than_the_limit_is_waited_for(site: Callable[..., None], runs: Runs) -> None:
    site("24.5.0", "queue_s=16")
    done, rows = runs("--size", "Small.64GB", "--steps", "2", "--timeout", "12")
    assert rows[0]["status"] == "ok", done.stderr
    assert rows[0]["queue_s"] > 12


def test_a_busy_accelerator_is_a_row_that_names_the_process(site: Callable[..., None], runs: Runs) -> None:
    site("24.5.0", "busy=1")
    done, rows = runs("--size", "Small.64GB", "--steps", "2")
    assert (done.returncode, rows[0]["status"]) == (4, "error")
    assert "process 10000: python train.py" in rows[0]["each_attempt"][0]["evidence"]


@pytest.mark.full
def test_an_interrupt_while_switched_puts_the_flavor_back(
    site: Callable[..., None], tmp_path: Path, tunemark_cache: Path
) -> None:
    site("24.5.0")
    words = _command("--size", "8xLarge.4096GB", "--steps", "9999", "--budget", "9999")
    with subprocess.Popen(
        words, cwd=tmp_path, env=_env(tunemark_cache), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stderr
        for line in job.stderr:
            if "first_step" in line:
                break
        assert _state(tmp_path)["devices"][0]["flavor"] == "8xLarge.4096GB"
        job.send_signal(signal.SIGTERM)
        began = time.monotonic()
        job.communicate()
        assert (job.returncode, time.monotonic() - began < 60) == (130, True)
    assert _state(tmp_path)["devices"][0]["flavor"] == "Small.64GB"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "ddp"], "the platform distributes by itself"),
        (["--strategy", "manual:num_stages=2"], "pin num_micro_batches"),
        (["--strategy", "auto:num_stages=many"], "num_stages is stages"),
        (["--strategy", "auto:stages=2"], "has no option 'stages'"),
        (["--breakdown"], "no way is documented"),
        (["--size", "Huge.1GB"], "has no size 'Huge.1GB'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_switched(
    site: Callable[..., None], runs: Runs, tmp_path: Path, words: list[str], said: str
) -> None:
    site("24.5.0", "switch=die")
    done, rows = runs(*(["--size", "xLarge.512GB"] if "--size" not in words else []), *words)
    assert (done.returncode, rows) == (2, [])
    assert said in done.stderr
    assert "Traceback" not in done.stderr
