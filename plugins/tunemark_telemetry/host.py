"""This machine's processors: energy by the kernel's powercap (RAPL), temperature by hwmon, clocks by cpufreq.

Energy is counted for whole packages: a job on some of the cores is charged for all of them, including other programs.
Sources: Linux kernel documentation, "Power Capping Framework", "hwmon sysfs interface", "CPU Performance
Scaling". Reading energy_uj takes root since Linux 5.10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import DeviceSample

# The number of cores whose clock is read: a read can wake a core, and a sample must not disturb the measurement.
_MAX_CLOCKS = 8
# The hwmon chips that measure processors: of Intel, AMD and ARM.
_HWMON_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class HostReader:
    """All packages together, as one device. root: of the file system, which a test can replace."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._devices: tuple[str, ...] = ()
        self._energy: list[tuple[Path, int | None]] = []
        self._temperatures: list[Path] = []
        self._clocks: list[Path] = []
        self._last: dict[Path, int] = {}
        self._wraps: dict[Path, int] = {}
        self._reason: str | None = None

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        self._devices = tuple(devices)
        zones = sorted((self._root / "sys/class/powercap").glob("*:*"))
        # intel-rapl:0 is a package, intel-rapl:0:0 a part of it; AMD's processors appear under the same names.
        packages = [zone for zone in zones if re.fullmatch(r"[a-z]+-rapl:\d+", zone.name)]
        packages = [zone for zone in packages if _text(zone / "name").startswith("package")]
        readable = [zone for zone in packages if _number(zone / "energy_uj") is not None]
        if not packages:
            self._reason = "this host has no /sys/class/powercap with a processor's energy"
        elif len(readable) < len(packages):
            self._reason = "the kernel lets only root read energy_uj"
        else:
            self._energy = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in packages]
        for chip in sorted((self._root / "sys/class/hwmon").glob("hwmon*")):
            if _text(chip / "name") in _HWMON_CHIPS:
                self._temperatures += sorted(chip.glob("temp*_input"))
        found = sorted((self._root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._clocks = found[:_MAX_CLOCKS]
        if not (self._energy or self._temperatures or self._clocks):
            raise TunemarkError(what=f"no telemetry: {self._reason}, no hwmon of a processor and no cpufreq")
        return {
            "packages": len(packages),
            "energy": "counted for whole packages, whoever uses them" if self._energy else None,
            "temperatures": len(self._temperatures),
            "clocks": len(self._clocks),
        }

    def sample(self) -> Sequence[DeviceSample]:
        clocks = [khz * 1e3 for path in self._clocks if (khz := _number(path)) is not None]
        degrees = [milli / 1000 for path in self._temperatures if (milli := _number(path)) is not None]
        counted = [self._joules(path, span) for path, span in self._energy]
        known = [joules for joules in counted if joules is not None]
        return [
            DeviceSample(
                id=device,
                energy_j=sum(known) if known and len(known) == len(counted) else None,
                energy_reason=self._reason,
                temperature_c=max(degrees, default=None),
                clock_hz=sum(clocks) / len(clocks) if clocks else None,
            )
            for device in self._devices
        ]

    def close(self) -> None:
        pass

    def _joules(self, path: Path, span: int | None) -> float | None:
        """The counter, which wraps around at `span`, as a monotonic value in joules."""
        value = _number(path)
        if value is None:
            return None
        if value < self._last.get(path, value):
            if span is None:
                return None
            self._wraps[path] = self._wraps.get(path, 0) + 1
        self._last[path] = value
        return (value + self._wraps.get(path, 0) * (span or 0)) * 1e-6


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None
