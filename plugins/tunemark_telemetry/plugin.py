"""Descriptors of three monitors. A device of any plugin may name them."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Monitor
from tunemark.plugin.hooks import hookimpl


@hookimpl
def tunemark_monitors() -> Sequence[Monitor]:
    return [
        Monitor(
            name="nvml",
            loader="tunemark_telemetry.nvml:NvmlReader",
            description="NVIDIA GPUs by index or UUID, through nvidia-ml-py; not run on hardware",
        ),
        Monitor(
            name="amdsmi",
            loader="tunemark_telemetry.amdsmi_library:make_reader",
            description="AMD GPUs by index (each die is one), through ROCm's amdsmi or the program amd-smi; not run on "
            "hardware",
        ),
        Monitor(
            name="host",
            loader="tunemark_telemetry.host:HostReader",
            description="this machine's processors, by the kernel's powercap and hwmon",
        ),
    ]
