"""Devices watched through fakes of their vendors' libraries while a job runs: what was wrong is in the verdict, and
energy comes from counters alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.alone
_FAKES = Path(__file__).parents[1] / "fakes"
# 24 timed steps of 0.1 s are 2.4 s, in windows of three: where other load keeps the program 2 ms from reading what a
# wait has brought, that is under 1 % of a window.
_WORDS = ["--model", "toy-lm", "--dataset", "toy-text", "--device", "toy-async", "--precision", "fp32"]
_WORDS += ["--sequence", "32", "--micro-batch", "2", "--warmup", "2", "--steps", "24", "--window", "0.8", "--json"]
_WORDS += ["--repeats", "1", "--no-measure-peak", "--target-interval", "0"]


class Run:
    """`row`: the result. `opened`: what the library said of the devices. `samples`: of the first attempt."""

    def __init__(self, tunemark: Tunemark, folder: Path, plugin: dict[str, str], monitor: str, **wrong: Any) -> None:
        path = os.pathsep.join([str(_FAKES), plugin["PYTHONPATH"]])
        variables = {"PYTHONPATH": path, "TOY_MONITOR": monitor, "TOY_STEP_S": "0.1", "FAKE_GPUS": json.dumps(wrong)}
        if monitor == "amd-smi":
            # The program alone: without ROCm the library cannot be imported, installed or not.
            path = os.pathsep.join([str(_FAKES / "bin"), os.environ["PATH"]])
            variables |= {"PYTHONPATH": plugin["PYTHONPATH"], "TOY_MONITOR": "amdsmi", "PATH": path}
        # A program is asked a few times a second at best.
        words = [*_WORDS, *(["--steps", "80"] if monitor == "amd-smi" else [])]
        done = tunemark("run", *words, environment={**plugin, **variables, "TUNEMARK_TELEMETRY_S": "0.1"})
        (line,) = done.stdout.splitlines()
        self.row: dict[str, Any] = json.loads(line)
        assert self.row["status"] == "ok", done.stderr
        (file,) = folder.glob("runs/*/*/telemetry.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        self.opened = rows[0]
        self.samples = rows[1:]

    def severity(self, rule: str) -> str | None:
        return next((f["severity"] for f in self.row["findings"] if f["rule"] == rule), None)

    def message(self, rule: str) -> str:
        return next(f["message"] for f in self.row["findings"] if f["rule"] == rule)


def test_nvml_energy_is_of_the_timed_part_and_trouble_is_in_the_verdict(
    tunemark: Tunemark, tmp_path: Path, example_plugin: dict[str, str]
) -> None:
    run = Run(tunemark, tmp_path, example_plugin, "nvml", throttle=[0], capped=[1], foreign={"1": 1})
    row = run.row
    # 300 W and 200 W, by counters of millijoules.
    assert row["power_w"] == pytest.approx(500, rel=0.02)
    assert row["energy_j"] == pytest.approx(500 * row["interval_s"], rel=0.02)
    assert row["energy_per_token_j"] == pytest.approx(row["energy_j"] / row["tokens"]["content"])
    assert (row["temperature_c"], row["clock_hz"]) == (91, pytest.approx((1200e6 + 1980e6) / 2))
    assert row["throttled_fraction"] == 1
    assert row["telemetry_reasons"] == {}
    assert run.severity("throttled") == "suspect"
    assert "heat, by the hardware" in run.message("throttled")
    assert run.severity("foreign-process") == "suspect"
    # The job's own process is on the device too, and is none of them.
    assert run.message("foreign-process").endswith(": other_job (pid 1) on device 1")
    assert run.severity("power-capped") == "note"
    assert row["verdict"] == "suspect"
    assert run.opened["each"]["0"]["name"] == "NVIDIA H100 80GB HBM3"
    assert run.opened["links"] == [["self", "nvlink"], ["nvlink", "self"]]
    assert row["environment"]["devices"]["links"] == run.opened["links"]


@pytest.mark.full
def test_a_lost_die_of_amd_makes_the_run_invalid_and_its_energy_unknown(
    tunemark: Tunemark, tmp_path: Path, example_plugin: dict[str, str]
) -> None:
    run = Run(tunemark, tmp_path, example_plugin, "amdsmi", lost={"1": 8})
    row = run.row
    assert run.severity("device-lost") == "invalid"
    assert "AMDSMI_STATUS_NOT_FOUND" in run.message("device-lost")
    assert row["verdict"] == "invalid"
    assert row["energy_j"] is None
    assert row["energy_per_token_j"] is None
    assert "was not read on both sides" in row["telemetry_reasons"]["energy_j"]
    assert run.opened["each"]["1"]["dies"] == 1
    assert run.opened["links"][0][1] == "xgmi"


@pytest.mark.full
@pytest.mark.parametrize("monitor", ["nvml", "amdsmi", "amd-smi"])
@pytest.mark.parametrize(
    ("wrong", "rule", "verdict"),
    [
        ({"throttle": [1]}, "throttled", "suspect"),
        ({"foreign": {"0": 1}}, "foreign-process", "suspect"),
        ({"lost": {"0": 8}}, "device-lost", "invalid"),
    ],
)
def test_each_trouble_alone(
    tunemark: Tunemark,
    tmp_path: Path,
    example_plugin: dict[str, str],
    monitor: str,
    wrong: dict[str, Any],
    rule: str,
    verdict: str,
) -> None:
    run = Run(tunemark, tmp_path, example_plugin, monitor, **wrong)
    assert run.severity(rule) == {"suspect": "suspect", "invalid": "invalid"}[verdict]
    assert run.row["verdict"] == verdict


@pytest.mark.full
@pytest.mark.parametrize(
    ("monitor", "sound"), [("nvml", {}), ("amdsmi", {}), ("amdsmi", {"package": True}), ("amd-smi", {"package": True})]
)
def test_sound_devices_are_no_finding(
    tunemark: Tunemark, tmp_path: Path, example_plugin: dict[str, str], monitor: str, sound: dict[str, Any]
) -> None:
    run = Run(tunemark, tmp_path, example_plugin, monitor, **sound)
    assert not {"throttled", "foreign-process", "device-lost"} & {f["rule"] for f in run.row["findings"]}
    # Of two dies of one package the first one's counter is the package's. A program takes longer to read it.
    watts = 300 if sound else 500
    near = 0.1 if monitor == "amd-smi" else 0.02
    assert run.row["energy_j"] == pytest.approx(watts * run.row["interval_s"], rel=near)


@pytest.mark.full
def test_without_the_library_the_run_goes_on_and_says_why_it_knows_nothing(
    tunemark: Tunemark, tmp_path: Path, example_plugin: dict[str, str]
) -> None:
    environment = {**example_plugin, "TOY_MONITOR": "no-such-monitor"}
    done = tunemark("run", *_WORDS, environment=environment)
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert row["status"] == "ok"
    assert row["energy_j"] is None
    assert row["telemetry_reasons"]["energy_j"]
