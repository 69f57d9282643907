"""The device `xla`, as the parent process sees it, without torch: Google's TPUs, or the CPU where PJRT_DEVICE says so.

Not run on a TPU by its authors: the detection, the environment and the peaks of TPUs are written against documents.
XLA's CPU device runs the same worker code, and is what the tests run on.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunemark.physics.chip_peaks import find_chip, find_peak
from tunemark.plugin.descriptors import Accelerator, LaunchConfig, MonitorTarget, Strategy
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device
from tunemark_torch.plugin import CpuDevice

# Of torch_xla, and of the torch that it is built for.
_TESTED_VERSION = "2.9"
# Selects the PJRT client, in torch_xla as here.
DEVICE_VARIABLE = "PJRT_DEVICE"
_GOOGLE_VENDOR = "0x1ae0"
# The chip of a PCI device of Google's, by its id, as JAX has them (jax/_src/hardware_utils.py, 2026-11). Versions 2 and
# 3 have the same id, and different peaks.
_TPU_CHIPS = {
    "0x0027": "TPU v2 or v3",
    "0x005e": "TPU-v4",
    "0x0062": "TPU-v5p",
    "0x0063": "TPU-v5e",
    "0x006f": "TPU-v6e",
    "0x0076": "TPU-v7x",
}
# One process uses one chip, whatever else the host has (cloud.google.com/tpu/docs, "run multiple workloads").
_ONE_CHIP = {"TPU_VISIBLE_CHIPS": "0", "TPU_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}


class XlaDevice:
    """What PJRT offers to torch_xla. A size is a number of CPU cores where PJRT_DEVICE is CPU; else it is 1, one TPU
    device: a chip, or of chips with two cores that are devices of their own, a core."""

    name = "xla"
    runtime = "tunemark_xla.runtime:XlaRuntime"
    packages = ("torch", "torch_xla")

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> None:
        self._root, self._environment = root, environment
        self._cpu = CpuDevice(root, environment)

    def accelerators(self) -> Sequence[Accelerator]:
        if self._is_cpu():
            return [_name_xla(each) for each in self._cpu.accelerators()]
        chip = self._find_tpu_chip()
        return [] if chip is None else [_make_tpu(chip)]

    def accelerator(self, size: str) -> Accelerator | None:
        if self._is_cpu():
            found = self._cpu.accelerator(size)
            return None if found is None else _name_xla(found)
        if size != "1":
            return None
        chip = self._find_tpu_chip()
        return replace(_make_tpu("TPU"), oversubscribed=True, is_present=False) if chip is None else _make_tpu(chip)

    def default_size(self) -> str:
        return self._cpu.default_size() if self._is_cpu() else "1"

    def absence(self) -> str:
        given = self._environment.get(DEVICE_VARIABLE)
        if given is not None and given != "TPU":
            return f"{DEVICE_VARIABLE} is {given!r}, and this device can be TPU or CPU: set one of them"
        return (
            f"no TPU is on this machine's PCI bus; to use XLA's CPU device instead, set {DEVICE_VARIABLE}=CPU "
            "in the environment of tunemark"
        )

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """One process. On the CPU it is pinned to its cores, because XLA starts a thread for each that it may use."""
        if self._is_cpu():
            planned = self._cpu.launch(accelerator, replace(strategy, distributed=False, layout=None))
            environment = {**planned.environment, DEVICE_VARIABLE: "CPU"}
            return replace(planned, environment=environment)
        own = {name: value for name, value in _ONE_CHIP.items() if name not in self._environment}
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return LaunchConfig(processes=1, threads=threads, environment={**own, DEVICE_VARIABLE: "TPU"})

    def monitor_target(self, accelerator: Accelerator) -> MonitorTarget | None:
        return self._cpu.monitor_target(accelerator) if self._is_cpu() else None

    def refusal(self, accelerator: Accelerator, strategy: str, settings: Mapping[str, Any]) -> str | None:
        if strategy.partition(":")[0] != "none":
            return "here one process trains on one device of PJRT, without a strategy for several: --strategy none"
        if settings["checkpointing"] != "none":
            return (
                "XLA's compiler finds that the recomputation equals what was computed before, and merges both, so that "
                "no memory is freed: --checkpointing none"
            )
        if settings.get("batching") == "bucket":
            return (
                "XLA compiles a program for each width of a micro-batch, and --batching bucket makes many: --batching "
                "pack or pad"
            )
        return None

    def interpreter_problem(self, versions: Mapping[str, str | None]) -> str | None:
        """torch_xla is built for the torch of its own minor version, and does not ask pip for it."""
        minors = {name: _minor_version(version) for name, version in versions.items()}
        if len(minors) == len(self.packages) and (None in minors.values() or len(set(minors.values())) == 1):
            return None
        minor = minors.get("torch_xla") or _TESTED_VERSION
        pinned = f"'torch=={minor}.*' 'torch_xla=={minor}.*' transformers"
        return (
            "torch_xla works with the torch of its own version, so give it an environment of its own (python -m venv "
            f"xla; xla/bin/pip install {pinned}) and pass --python xla/bin/python"
        )

    def _is_cpu(self) -> bool:
        return self._environment.get(DEVICE_VARIABLE) == "CPU"

    def _find_tpu_chip(self) -> str | None:
        """The name of this machine's TPU chip; None where there is none, or PJRT_DEVICE is something else."""
        if self._environment.get(DEVICE_VARIABLE, "TPU") != "TPU":
            return None
        for path in sorted(self._root.glob("sys/bus/pci/devices/*/vendor")):
            with contextlib.suppress(OSError):
                if path.read_text().strip() == _GOOGLE_VENDOR:
                    chip = _TPU_CHIPS.get(path.with_name("device").read_text().strip())
                    if chip is not None:
                        return chip
        return None


def _minor_version(version: str | None) -> str | None:
    """The "2.9" of "2.9.1+cpu"."""
    return None if version is None else ".".join(version.split(".")[:2])


def _name_xla(cores: Accelerator) -> Accelerator:
    return replace(cores, chip=f"{cores.chip} through XLA")


def _make_tpu(name: str) -> Accelerator:
    """One device of PJRT on that chip: a die where the chip has two."""
    if re.fullmatch(r"TPU-v\w+", name) is None:
        # Without a version nothing is known of it; --chip and --chips can say.
        return Accelerator(name="1", chip=name, chips=1, memory_bytes=None)
    chip = find_chip(name)
    if chip.dies > 1:
        chip = find_chip(f"{name} die")
    peak = find_peak(chip.name, "bf16")
    return Accelerator(
        name="1",
        chip=chip.name,
        chips=1,
        memory_bytes=chip.memory_bytes,
        peak_flops={"bf16": peak.flops} if peak else {},
        source=peak.source if peak else None,
    )


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [XlaDevice()]
