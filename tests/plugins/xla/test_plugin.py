"""The device `xla` in the parent: what is found on a machine, what is refused, and in which words."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunemark.errors import BadExperiment
from tunemark.experiment import make_experiment, make_grid_points, make_plans
from tunemark.plugin import Catalog, ChecksInterpreter, ExplainsAbsence, Strategy
from tunemark_xla.plugin import XlaDevice

NONE = Strategy(name="none", runtime="tunemark_torch.runtime:NoStrategy", distributed=False)


def _machine(root: Path, *devices: tuple[str, str]) -> Path:
    """A file tree with these PCI devices: (vendor, device) each."""
    for number, (vendor, device) in enumerate(devices):
        folder = root / f"sys/bus/pci/devices/0000:00:0{number}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{device}\n")
    return root


@pytest.mark.parametrize(
    ("pci", "chip", "tflops"),
    [
        ("0x0063", "TPU-v5e", 197.0),
        ("0x0062", "TPU-v5p", 459.0),
        ("0x006f", "TPU-v6e", 918.0),
        # A device of PJRT is one of the two cores of this chip: 2307 / 2.
        ("0x0076", "TPU-v7x die", 1153.5),
    ],
)
def test_a_tpu_is_one_device_with_its_published_peak(tmp_path: Path, pci: str, chip: str, tflops: float) -> None:
    root = _machine(tmp_path, ("0x8086", "0x1237"), ("0x1ae0", "0x001f"), ("0x1ae0", pci), ("0x1ae0", pci))
    device = XlaDevice(root, {})
    (found,) = device.accelerators()
    assert (found.name, found.chip, found.chips, found.is_present) == ("1", chip, 1, True)
    assert found.peak_flops == {"bf16": pytest.approx(tflops * 1e12)}
    assert found.source is not None
    assert "google" in found.source
    launch = device.launch(found, NONE)
    assert (launch.processes, launch.environment["PJRT_DEVICE"], launch.environment["TPU_VISIBLE_CHIPS"]) == (
        1, "TPU", "0",
    )  # fmt: skip


def test_a_chip_that_the_bus_does_not_tell_has_no_peak(tmp_path: Path) -> None:
    # Versions 2 and 3 have the same id.
    (found,) = XlaDevice(_machine(tmp_path, ("0x1ae0", "0x0027")), {}).accelerators()
    assert (found.chip, found.peak_flops, found.memory_bytes) == ("TPU v2 or v3", {}, None)


def test_the_cpu_is_chosen_by_the_variable_alone(tmp_path: Path) -> None:
    root = _machine(tmp_path, ("0x1ae0", "0x0063"))
    cpu = XlaDevice(root, {"PJRT_DEVICE": "CPU"})
    assert cpu.accelerators()[0].name == "1"
    assert all("through XLA" in each.chip for each in cpu.accelerators())
    launch = cpu.launch(cpu.accelerators()[0], NONE)
    assert (launch.processes, launch.threads, launch.environment["PJRT_DEVICE"]) == (1, 1, "CPU")
    assert len(launch.options["cores"][0]) == 1
    assert XlaDevice(tmp_path / "empty", {}).accelerators() == []
    assert XlaDevice(root, {"PJRT_DEVICE": "NEURON"}).accelerators() == []


def test_absence_is_explained(tmp_path: Path) -> None:
    assert "set PJRT_DEVICE=CPU" in XlaDevice(tmp_path, {}).absence()
    assert "PJRT_DEVICE is 'NEURON'" in XlaDevice(tmp_path, {"PJRT_DEVICE": "NEURON"}).absence()
    assert isinstance(XlaDevice(), ExplainsAbsence)
    # Only planned: nothing is known of a TPU that is not here.
    planned = XlaDevice(tmp_path, {}).accelerator("1")
    assert planned is not None
    assert (planned.is_present, planned.oversubscribed, planned.peak_flops) == (False, True, {})
    assert XlaDevice(tmp_path, {}).accelerator("2") is None


@pytest.mark.parametrize(
    ("versions", "is_accepted"),
    [
        ({"torch": "2.9.1+cpu", "torch_xla": "2.9.0"}, True),
        ({"torch": "2.9.0", "torch_xla": None}, True),
        ({"torch": "2.13.0", "torch_xla": "2.9.0"}, False),
        ({"torch": "2.10.0", "torch_xla": "2.1.0"}, False),
        ({"torch": "2.13.0"}, False),
        ({}, False),
    ],
)
def test_an_interpreter_has_both_in_one_version(versions: dict[str, str | None], is_accepted: bool) -> None:
    assert isinstance(XlaDevice(), ChecksInterpreter)
    remedy = XlaDevice().interpreter_problem(versions)
    assert (remedy is None) is is_accepted
    assert is_accepted or "--python" in str(remedy)


def test_what_one_process_cannot_do_is_refused() -> None:
    def refusal(strategy: str, checkpointing: str = "none", batching: str = "pack") -> str | None:
        accelerator: Any = SimpleNamespace()
        return XlaDevice().refusal(accelerator, strategy, {"checkpointing": checkpointing, "batching": batching})

    assert refusal("none") is None
    assert "--strategy none" in str(refusal("ddp:2"))
    assert "no memory is freed" in str(refusal("none", "full"))
    assert "each width of a micro-batch" in str(refusal("none", batching="bucket"))


def test_the_running_interpreter_is_refused_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunemark.launch.interpreter import check_plans

    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    settings = {"model": "mistral-tiny", "device": "xla", "dataset": "synthetic", "size": "1"}
    plans = make_plans(make_grid_points(make_experiment(settings, None)), Catalog())
    with pytest.raises(BadExperiment) as refused:
        check_plans(plans)
    assert refused.value.what == f"{sys.executable} cannot use the device xla"
    assert "no torch_xla" in str(refused.value.why)
    assert "python -m venv" in str(refused.value.next)


def test_a_plan_for_a_machine_without_the_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    settings: dict[str, Any] = {"model": "mistral-tiny", "device": "xla", "dataset": "synthetic"}
    points = make_grid_points(make_experiment(settings, None))
    with pytest.raises(BadExperiment) as refused:
        make_plans(points, Catalog())
    assert "PJRT_DEVICE=CPU" in str(refused.value.why)
