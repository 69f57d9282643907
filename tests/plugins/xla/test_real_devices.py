"""Real lazy and asynchronous devices: torch_xla's CPU device and torch_nntile, each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tunemark_worker.contract import MAX_LATE

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
_ROOT = Path(__file__).parents[3]
sys.path.append(str(_ROOT / "benchmarks"))
import real_interpreters  # noqa: E402  # a program of the benchmarks

pytestmark = pytest.mark.full
# The threads of a CPU's peak that no measurement of the same CPU can exceed by this much: another code path may be
# somewhat better, and 8,868 GFLOP/s on two cores were 60 times too many.
_PLAUSIBLE = 5.0
_SHORT = ["--device", "xla:1", "--model", "mistral-tiny", "--dataset", "synthetic", "--sequence", "32"]
_SHORT += ["--micro-batch", "2", "--repeats", "1", "--target-interval", "0", "--json"]


def _interpreter(name: str) -> str:
    try:
        return real_interpreters.extended_interpreter(name)
    except real_interpreters.NotAvailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def xla_python() -> str:
    return _interpreter("xla")


def _check(done: subprocess.CompletedProcess[str], name: str) -> Mapping[str, Any]:
    checks = json.loads(done.stdout)["checks"]
    return next(check for check in checks if check["name"] == name)


def test_the_plugin_passes_the_kit(tunemark: Tunemark, xla_python: str) -> None:
    done = tunemark("check", "xla", "--python", xla_python, "--json", environment={"PJRT_DEVICE": "CPU"})
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["failed"], answer["skipped"]) == (0, 0, 0), done.stdout
    assert "of queued work" in _check(done, "honesty")["reason"]


@pytest.mark.parametrize("driver", ["lazy-xla-only-starts", "lazy-xla-does-nothing"])
def test_a_driver_that_does_not_wait_is_caught(
    tunemark: Tunemark, lazy_plugin: dict[str, str], xla_python: str, driver: str
) -> None:
    words = ["check", driver, "--only", "honesty", "--python", xla_python, "--json"]
    done = tunemark(*words, environment=lazy_plugin)
    honesty = _check(done, "honesty")
    assert (done.returncode, honesty["outcome"]) == (1, "failed"), honesty
    assert "synchronize does not wait" in honesty["reason"]


def test_a_run_counts_what_it_compiles_and_trains_as_the_cpu_does(tunemark: Tunemark, xla_python: str) -> None:
    steps = ["--precision", "fp32", "--warmup", "4", "--steps", "8"]
    done = tunemark("run", *_SHORT, *steps, "--python", xla_python, environment={"PJRT_DEVICE": "CPU"})
    row = json.loads(done.stdout.splitlines()[0])
    assert row["status"] == "ok", done.stderr
    assert row["compilations"] >= 2
    assert row["compile_s"] > 0
    rules = {finding["rule"] for finding in row["findings"]}
    assert not {"sync-does-not-wait", "compiled"} & rules
    assert row["peak_flops_source"] == "measured"
    assert row["environment"]["worker"]["device"]["hardware"] == "CPU"

    own = ["cpu:1" if word == "xla:1" else word for word in _SHORT]
    there = tunemark("run", *own, *steps, "--python", xla_python)
    other = json.loads(there.stdout.splitlines()[0])
    assert row["tokens"] == other["tokens"]
    # Random weights are drawn on the device, so the first losses are those of two draws; ln(32000) is 10.37.
    assert row["loss_first"] == pytest.approx(other["loss_first"], abs=0.3)
    # A measured peak of the same core, by another library.
    assert row["peak_flops"] < _PLAUSIBLE * other["peak_flops"]


@pytest.mark.parametrize("precision", ["bf16-autocast", "bf16"])
def test_what_it_trains_in_bf16_is_saved(tunemark: Tunemark, xla_python: str, tmp_path: Path, precision: str) -> None:
    words = ["--precision", precision, "--warmup", "2", "--steps", "3", "--no-measure-peak", "--python", xla_python]
    saved = tmp_path / "saved"
    done = tunemark("run", *_SHORT, *words, "--save", str(saved), environment={"PJRT_DEVICE": "CPU"})
    row = json.loads(done.stdout.splitlines()[0])
    assert row["status"] == "ok", row["each_attempt"]
    from safetensors.torch import load_file

    weights = load_file(saved / "model.safetensors")
    assert sum(each.numel() for each in weights.values()) == row["parameters"]
    assert {str(each.dtype) for each in weights.values()} == {
        "torch.bfloat16" if precision == "bf16" else "torch.float32"
    }
    assert all(bool(each.isfinite().all()) for each in weights.values())


def test_compiling_in_the_timed_part_is_found(tunemark: Tunemark, xla_python: str) -> None:
    steps = ["--precision", "fp32", "--warmup", "0", "--steps", "8", "--no-measure-peak"]
    done = tunemark("run", *_SHORT, *steps, "--python", xla_python, environment={"PJRT_DEVICE": "CPU"})
    row = json.loads(done.stdout.splitlines()[0])
    (finding,) = [each for each in row["findings"] if each["rule"] == "compiled"]
    assert (finding["severity"], row["verdict"]) == ("suspect", "suspect")


def test_another_real_backend_is_probed_and_measured() -> None:
    """torch_nntile records a graph, and computes it in threads of StarPU."""
    python = _interpreter("nntile")
    variables = {**os.environ, "PYTHONPATH": str(_ROOT / "harness"), "STARPU_SILENT": "1", "STARPU_NCPU": "1"}
    program = Path(__file__).with_name("nntile_probe.py")
    done = subprocess.run([python, program], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for driver, is_honest in (("Waits", True), ("OnlyStarts", False), ("DoesNothing", False)):
        probe = found[driver]["probe"]
        assert probe["is_queued"], driver
        assert (probe["late_s"] <= MAX_LATE * probe["work_s"]) is is_honest, (driver, probe)
        assert found[driver]["flops"] < _PLAUSIBLE * found["cpu"]["flops"]
