"""`tunemark scale` end to end: sizes measured once, read again from the store, and refusals before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SMALL = [
    "--model",
    "toy-lm",
    "--dataset",
    "toy-text",
    "--device",
    "cpu:1,2",
    "--strategy",
    "ddp",
    "--precision",
    "fp32",
]
_SMALL += ["--sequence", "32", "--micro-batch", "2", "--steps", "7", "--warmup", "1", "--no-measure-peak"]


class Scaled:
    """A folder in which a weak scaling was measured, once for all tests here."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.first = self.tunemark("scale", *_SMALL, "--mode", "weak", "--repeats", "1", "-o", "out")

    def tunemark(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tunemark", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory, tunemark_cache: Path, example_plugin: dict[str, str]) -> Scaled:
    variables = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache), **example_plugin}
    return Scaled(tmp_path_factory.mktemp("scale"), variables)


def test_the_table_names_the_mode_and_what_is_not_known(scaled: Scaled) -> None:
    done = scaled.first
    # Windows of a millisecond on a shared machine may be anything but failed.
    assert done.returncode in (0, 1, 3), done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "## Weak scaling: toy-lm on cpu, ddp, fp32, pack, sequence 32, batch per data rank 2"
    assert "efficiency (%)" in lines[2]
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| cpu:1", "| cpu:2"]
    assert "1 (base) | 100 (base)" in done.stdout or "its verdict is invalid" in lines[4]
    assert "fit: none: a fit needs at least 4 sizes that were measured well" in done.stdout
    assert "communication share: not measured" in done.stdout
    assert "weak scaling keeps a batch of 2 per data rank" in done.stderr
    assert "attempt 1 of 1" in done.stderr


def test_the_report_has_the_scaling_under_its_title(scaled: Scaled) -> None:
    report = (scaled.folder / "out/report.md").read_text()
    title = next(line for line in report.splitlines() if line.startswith("### weak scaling"))
    assert title.endswith("· toy-lm · cpu · ddp · fp32 · pack · batch per data rank 2")
    assert "### Which size" in report


def test_runs_that_are_there_are_taken_without_running(scaled: Scaled) -> None:
    (scaled.folder / "prices.toml").write_text('currency = "EUR"\n[per_chip_hour]\ncpu = 0.5\n')
    reported = ("-o", "ko", "--language", "ko", "--prices", "prices.toml")
    done = scaled.tunemark("scale", "--from", "runs", "--mode", "weak", "--json", *reported)
    assert done.returncode in (0, 1, 3), done.stderr
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert (row["mode"], row["unit"], row["batch"]) == ("weak", "chips", 2.0)
    assert [(p["size"], p["global_batch"], p["data_ranks"]) for p in row["points"]] == [("1", 2, 1), ("2", 4, 2)]
    # On a machine in use one of two sizes may be invalid, and then nothing is derived from it.
    is_whole = not any(point["left_out"] for point in row["points"])
    assert [point["speedup"] is None for point in row["points"]] == [bool(p["left_out"]) for p in row["points"]]
    if is_whole:
        assert row["base"] == "1"
        assert row["points"][1]["speedup"]["value"] > 0
        assert row["points"][1]["speedup"]["low"] is None
        assert "EUR" in {best["goal"]: best["evidence"] for best in row["best"]}["cheapest"]
    report = (scaled.folder / "ko/report.md").read_text()
    assert "약한 확장성(weak)" in report
    assert "EUR/h" in report
    assert row["fitted"] is None
    wanted = ("--prices", "prices.toml", "--predict", "8")
    again = scaled.tunemark("scale", "--from", "out", "runs", "--mode", "weak", "--json", *wanted)
    assert again.stdout == done.stdout
    assert "not predicted: 8 (no law is fitted)" in again.stderr


def test_runs_of_the_other_mode_are_refused_with_what_differs(scaled: Scaled) -> None:
    done = scaled.tunemark("scale", "--from", "runs", "--mode", "strong")
    assert done.returncode == 2
    assert "no two of these 2 runs show strong scaling" in done.stderr
    assert "differ in global batch (2, 4)" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (_SMALL, "--mode strong, or --mode weak"),
        ([*_SMALL, "--mode", "both"], "--mode"),
        ([*_SMALL, "--mode", "weak", "--knee", "2"], "--knee 0.5"),
        ([*_SMALL, "--mode", "weak", "--predict", "4,x"], "--predict cannot be 'x'"),
        ([*_SMALL, "--mode", "weak", "--device", "cpu:1"], "two sizes or more"),
        (["exp.toml", "--mode", "weak", "--from", "runs"], "an experiment and --from"),
        (["--mode", "weak", "--from", "runs", "--strategy", "fsdp"], "leave --strategy out, or --from"),
    ],
)
def test_bad_input_is_refused_before_any_work(scaled: Scaled, words: list[str], said: str) -> None:
    done = scaled.tunemark("scale", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_dry_run_says_the_batches_and_runs_nothing(scaled: Scaled) -> None:
    done = scaled.tunemark("scale", *_SMALL, "--mode", "strong", "--dry-run", "--store", "elsewhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Strong scaling\n")
    assert "keeps a global batch of 4" in done.stderr
    assert not (scaled.folder / "elsewhere").exists()
