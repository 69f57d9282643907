"""How fast is the harness itself: the commands that users wait for, the token file, and the statistics of a result?

Run with `pytest benchmarks --benchmark-only`. The bars are in this folder's README.md; slowness fails no test.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tunemark.data import prepare_data
from tunemark.plugin import Catalog
from tunemark_pytest.fixture import RunExperiment
from tunemark_worker import row_packing, steady_state

_COMMANDS = {
    "help": ["--help"],
    "list-models": ["list", "models"],
    "plan-mistral-7b": ["plan", "--model", "mistral-7b"],
    "dry-run-mistral-7b": ["run", "--model", "mistral-7b", "--dry-run"],
}

# Starts a command from a small process: Linux counts the parent's memory for the child until its exec.
_MEASURE_MEMORY = """
import os, sys
quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.parametrize("name", _COMMANDS)
def test_command(benchmark: BenchmarkFixture, name: str) -> None:
    command = ["-m", "tunemark", *_COMMANDS[name]]
    weighed = subprocess.run(
        [sys.executable, "-S", "-c", _MEASURE_MEMORY, *command], capture_output=True, text=True, check=True
    ).stdout.split()
    assert weighed[0] == "0"
    benchmark.extra_info["peak_memory_bytes"] = int(weighed[1])
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    benchmark.pedantic(subprocess.run, ([sys.executable, *command],), quiet, rounds=15, warmup_rounds=2)


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_python_stdlib_becomes_tokens(benchmark: BenchmarkFixture, state: str, tmp_path: Path) -> None:
    """Reads, tokenizes and writes the embedded dataset; warm: finds the token file in the cache."""
    catalog = Catalog()
    dataset, model = catalog.dataset("python-stdlib"), catalog.model("mistral-tiny")
    cache = tmp_path / "cache"

    def tokens() -> Any:
        return prepare_data(dataset, {}, model, "all", cache=cache)

    def forget() -> None:
        shutil.rmtree(cache, ignore_errors=True)

    if state == "cold":
        benchmark.pedantic(tokens, setup=forget, rounds=5)
    else:
        tokens()
        benchmark.pedantic(tokens, rounds=15, warmup_rounds=1)


def test_training_steps(tunemark: RunExperiment) -> None:
    """Steps of the smallest Mistral on one core through the whole harness; tokens/s are in extra_info."""
    result = tunemark(
        model="mistral-tiny", device="cpu:1", sequence=128, micro_batch=4, warmup=5, steps=20, repeats=1,
        target_interval=0, no_measure_peak=True,
    )  # fmt: skip
    assert result.tokens_per_s is not None


def test_packing_plans_an_epoch(benchmark: BenchmarkFixture) -> None:
    """Rows of 512 slots from 18,000 documents: index arithmetic that runs during training."""
    chance = random.Random(1)
    lengths = [int(chance.lognormvariate(5, 0.7)) + 1 for _ in range(18_000)]

    def plan() -> int:
        return sum(1 for _ in row_packing.make_batch_rows(lengths, 512, "pack", 0, 1))

    assert benchmark.pedantic(plan, rounds=5) > 0


@pytest.mark.parametrize("windows", [100, 10_000])
def test_a_rate_and_its_interval(benchmark: BenchmarkFixture, windows: int) -> None:
    chance = random.Random(2)
    durations = [1 + 0.05 * chance.random() for _ in range(windows)]
    found = benchmark(steady_state.within_run_interval, durations, [1000.0] * windows)
    assert found.low is not None


@pytest.mark.parametrize("windows", [100, 10_000])
def test_the_end_of_a_warm_up(benchmark: BenchmarkFixture, windows: int) -> None:
    """Durations that drift to the end, the slowest case of the search."""
    benchmark.pedantic(steady_state.find_warmup_end, ([1 + 0.1 * i for i in range(windows)],), rounds=3)
