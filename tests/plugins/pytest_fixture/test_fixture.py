"""The fixture `tunemark` in a pytest of its own, with pytest-benchmark and without; one real experiment for all."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunemark.plugin import Finding
from tunemark.results import Store, timed_seconds_per_step
from tunemark_pytest.fixture import NoMeasurement, require_figures

Pytest = Callable[..., subprocess.CompletedProcess[str]]

_TESTS = """
import pytest

@pytest.mark.benchmark(group="mine")
def test_speed(tunemark):
    result = tunemark(
        model="mistral-tiny", dataset="synthetic", device="cpu:1", sequence=16, micro_batch=1, steps=4, warmup=1,
        repeats=1, no_measure_peak=True, store="kept", redo=False,
    )
    assert result.tokens_per_s.value > 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a test that has measured once; its attempts are kept, so that no other run measures again."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "test_speed.py").write_text(_TESTS)
    done = _pytest(folder, "--benchmark-save=first", "--benchmark-save-data", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # A plugin of our own suite's, or its options, must not reach in.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def _saved(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob(".benchmarks/*/0001_first.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_rounds_are_the_timed_steps_to_the_last_bit(folder: Path) -> None:
    (bench,) = _saved(folder)["benchmarks"]
    (result,) = Store(folder / "kept").results()
    (measurement,) = Store(folder / "kept").measurements(result.run_id)
    assert bench["stats"]["data"] == list(timed_seconds_per_step(measurement, result))
    assert bench["stats"]["rounds"] == 4
    assert (bench["group"], bench["stats"]["iterations"]) == ("mine", 1)


def test_tokens_stand_beside_the_seconds(folder: Path) -> None:
    (bench,) = _saved(folder)["benchmarks"]
    (result,) = Store(folder / "kept").results()
    assert result.tokens_per_s is not None
    extra = bench["extra_info"]
    assert extra["tokens_per_s"] == result.tokens_per_s.value
    assert extra["tokens_per_s"] == pytest.approx(16 / bench["stats"]["mean"])
    assert (extra["tokens_per_s_low"], extra["verdict"]) == (result.tokens_per_s.low, result.verdict)
    assert (extra["tunemark"]["run_id"], extra["tunemark"]["sequence"]) == (result.run_id, 16)


def test_what_is_saved_can_be_compared(folder: Path) -> None:
    done = _pytest(folder, "--benchmark-compare", "--benchmark-compare-fail=mean:1%")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^test_speed \(0001_first\)", done.stdout, re.MULTILINE)
    assert re.search(r"^test_speed \(NOW\)", done.stdout, re.MULTILINE)


@pytest.mark.full
def test_a_histogram_is_drawn(folder: Path) -> None:
    if importlib.util.find_spec("pygal") is None:
        pytest.skip("pygal, with which pytest-benchmark draws, is not installed")
    done = _pytest(folder, "--benchmark-histogram=drawn")
    assert done.returncode == 0, done.stdout
    (drawing,) = folder.glob("drawn*.svg")
    assert "test_speed" in drawing.read_text()


def test_without_pytest_benchmark_it_runs_and_records_nothing(folder: Path) -> None:
    done = _pytest(folder, "-p", "no:benchmark", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_its_switches_are_heeded(folder: Path) -> None:
    assert "1 skipped" in _pytest(folder, "--benchmark-skip").stdout
    disabled = _pytest(folder, "--benchmark-disable", "-W", "error")
    assert "1 passed" in disabled.stdout
    assert "Rounds" not in disabled.stdout


def test_no_figure_is_no_benchmark(folder: Path) -> None:
    (result,) = Store(folder / "kept").results()
    require_figures(result, [1.0])
    with pytest.raises(NoMeasurement, match="no step was timed"):
        require_figures(result, [])
    with pytest.raises(NoMeasurement, match="the run ended oom"):
        require_figures(msgspec.structs.replace(result, status="oom"), [1.0])
    finding = Finding(rule="weights-unchanged", severity="invalid", message="nothing was trained")
    with pytest.raises(NoMeasurement, match="invalid: weights-unchanged: nothing was trained"):
        require_figures(msgspec.structs.replace(result, verdict="invalid", findings=(finding,)), [1.0])


def test_what_cannot_be_measured_fails_the_test_and_is_not_saved(tmp_path: Path) -> None:
    (tmp_path / "test_speed.py").write_text(
        "def test_two(tunemark):\n    tunemark(size=[1, 2], device='cpu')\n\n"
        "def test_none(tunemark):\n    tunemark(model='mistral-7B')\n"
    )
    words = ["--benchmark-json=saved.json", "-W", "error"]
    done = _pytest(tmp_path, *words)
    assert "2 failed" in done.stdout
    assert "error" not in done.stdout.splitlines()[-1]
    assert "2 runs in one test" in done.stdout
    assert "did you mean 'mistral-7b'?" in done.stdout
    assert not (tmp_path / "saved.json").exists() or not json.loads((tmp_path / "saved.json").read_text())["benchmarks"]


def test_a_start_of_pytest_costs_nothing_where_the_fixture_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef tunemark():\n    return 'somebody else\\'s'\n"
    )
    (tmp_path / "test_mine.py").write_text(
        "import sys\n\ndef test_mine(tunemark):\n    assert tunemark.startswith('somebody')\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'pandas', 'msgspec'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = _pytest(tmp_path, "-W", "error")
    assert "1 passed" in done.stdout, done.stdout
