"""Samples of a device's vendor library during a job, summarized over the timed part of that job.

The parent process writes them (TELEMETRY_FILE in the attempt's folder), about one per second, on CLOCK_MONOTONIC of
the same host as the records' instants. Energy is a difference of counters, never data-sheet power times time.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemark.plugin.descriptors import TELEMETRY_FILE
from tunemark.results.stored_file import read_stored_file

# Two samples at the ends and one between: with fewer, most of the result is linear interpolation at the ends.
MIN_SAMPLES = 3

TELEMETRY_FIELDS = ("energy_j", "power_w", "temperature_c", "clock_hz", "throttled_fraction")


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """One attempt's samples as written. opened: the monitor's description of itself and its devices; failure: why there
    are no samples, else empty."""

    monitor: str = ""
    devices: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    opened: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetrySummary:
    """Telemetry of a part of an attempt; None if unknown, and then `reasons` says why.

    energy_j, power_w: sums over the job's devices. temperature_c: highest. clock_hz: mean over devices and time.
    throttled_fraction: of samples with any device slowed down by heat or lack of power. causes: of throttling, each
    with its number of samples. capped_fraction: of samples with a device held back by a power limit. foreign_processes:
    those of other jobs, named for people. lost_devices: the errors of devices that stopped answering.
    """

    samples: int = 0
    energy_j: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    throttled_fraction: float | None = None
    capped_fraction: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)
    foreign_processes: tuple[str, ...] = ()
    lost_devices: tuple[str, ...] = ()


def read_telemetry(folder: Path) -> Telemetry | None:
    """Read the samples in an attempt's folder; None if nothing was monitored. A truncated last line is ignored."""
    try:
        text = read_stored_file(folder / TELEMETRY_FILE).decode(errors="replace")
    except OSError:
        return None
    opened: Mapping[str, Any] = {}
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict):
            continue
        if row.get("kind") == "open":
            opened = row
        elif row.get("kind") == "sample" and isinstance(row.get("instant_s"), (int, float)):
            rows.append(row)
    if not opened:
        return None  # some other file of that name
    return Telemetry(
        monitor=str(opened.get("monitor", "")),
        devices=tuple(str(d) for d in opened.get("devices", ())),
        rows=tuple(rows),
        opened={k: v for k, v in opened.items() if k not in ("kind", "monitor", "devices", "failure")},
        failure=str(opened.get("failure") or ""),
    )


def summarize_telemetry(telemetry: Telemetry | None, begin_s: float, end_s: float) -> TelemetrySummary:
    """Summarize the samples from begin_s to end_s."""
    if telemetry is None:
        return _unknown("the device names no monitor")
    if telemetry.failure:
        return _unknown(telemetry.failure)
    inside = [row for row in telemetry.rows if begin_s <= row["instant_s"] <= end_s]
    whole = _SamplesByDevice(telemetry.rows, telemetry.devices)
    lost = tuple(dict.fromkeys(whole.lost_devices(end_s)))
    # Another process on the device matters whether it was seen before or during the timed part.
    foreign = tuple(dict.fromkeys(whole.foreign_processes(end_s)))
    if len(inside) < MIN_SAMPLES:
        why = f"{len(inside)} samples in {end_s - begin_s:.3g} s timed, {MIN_SAMPLES} are needed"
        return TelemetrySummary(
            samples=len(inside),
            reasons=dict.fromkeys(TELEMETRY_FIELDS, why),
            foreign_processes=foreign,
            lost_devices=lost,
        )
    part = _SamplesByDevice(inside, telemetry.devices)
    reasons: dict[str, str] = {}
    energy = whole.energy_j(begin_s, end_s, reasons)
    powers = part.each("power_w")
    power = energy / (end_s - begin_s) if energy is not None else _sum_of_means(powers)
    temperatures = [v for values in part.each("temperature_c").values() for v in values]
    clocks = part.each("clock_hz")
    clock = mean_of_known([mean_of_known(values) for values in clocks.values()]) if all(clocks.values()) else None
    causes = part.causes()
    throttled = None if causes is None else part.count("throttle") / len(inside)
    found = {
        "energy_j": energy,
        "power_w": power,
        "temperature_c": max(temperatures, default=None),
        "clock_hz": clock,
        "throttled_fraction": throttled,
    }
    for name, value in found.items():
        if value is None:
            reasons.setdefault(name, f"{telemetry.monitor} does not say it of every device")
    return TelemetrySummary(
        samples=len(inside),
        **found,
        capped_fraction=part.count("power_capped") / len(inside),
        reasons=reasons,
        causes=causes or {},
        foreign_processes=foreign,
        lost_devices=lost,
    )


class _SamplesByDevice:
    """Samples grouped by device."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], devices: Sequence[str]) -> None:
        self._rows, self._devices = rows, devices

    def each(self, name: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {device: [] for device in self._devices}
        for _, device, sample in self._samples():
            value = sample.get(name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                found.setdefault(device, []).append(float(value))
        return found

    def energy_j(self, begin_s: float, end_s: float, reasons: dict[str, str]) -> float | None:
        total = 0.0
        shared = {device: s["shares_energy_of"] for _, device, s in self._samples() if s.get("shares_energy_of")}
        for device in self._devices:
            if shared.get(device) in self._devices:
                continue  # the other device's counter includes its energy
            points = [
                (instant_s, float(sample["energy_j"]))
                for instant_s, name, sample in self._samples()
                if name == device and isinstance(sample.get("energy_j"), (int, float))
            ]
            before, after = _interpolate(points, begin_s), _interpolate(points, end_s)
            if not points:
                stated = [
                    s["energy_reason"] for _, name, s in self._samples() if name == device and s.get("energy_reason")
                ]
                reasons["energy_j"] = stated[0] if stated else f"device {device} has no energy counter that may be read"
                return None
            if before is None or after is None:
                reasons["energy_j"] = f"the counter of device {device} was not read on both sides of the timed part"
                return None
            if after < before:
                reasons["energy_j"] = f"the counter of device {device} went backwards"
                return None
            total += after - before
        if not self._devices:
            reasons["energy_j"] = "no device was sampled"
            return None
        return total

    def causes(self) -> dict[str, int] | None:
        """Samples by cause of throttling; None if no device reports it."""
        found: dict[str, int] = {}
        is_reported = False
        for _, _, sample in self._samples():
            if sample.get("throttle") is not None:
                is_reported = True
                for cause in sample["throttle"]:
                    found[cause] = found.get(cause, 0) + 1
        return found if is_reported else None

    def count(self, field: str) -> int:
        """The number of samples in which this field of any device is true."""
        return sum(any(s.get(field) for s in row.get("devices", ())) for row in self._rows)

    def foreign_processes(self, end_s: float) -> Iterable[str]:
        for instant_s, device, sample in self._samples():
            for process in sample.get("processes") or () if instant_s <= end_s else ():
                if process.get("is_ours") is False:
                    name = process.get("command") or "a process"
                    yield f"{name} (pid {process.get('pid')}) on device {device}"

    def lost_devices(self, end_s: float) -> Iterable[str]:
        for instant_s, device, sample in self._samples():
            if sample.get("lost") and instant_s <= end_s:
                yield f"device {device}: {sample['lost']}"

    def _samples(self) -> Iterable[tuple[float, str, Mapping[str, Any]]]:
        for row in self._rows:
            for sample in row.get("devices", ()):
                yield row["instant_s"], str(sample.get("id")), sample


def _interpolate(points: Sequence[tuple[float, float]], instant_s: float) -> float | None:
    """A counter's value at an instant, interpolated between two readings; None outside of them."""
    for (a_s, a), (b_s, b) in itertools.pairwise(points):
        if a_s <= instant_s <= b_s:
            return a + (b - a) * (instant_s - a_s) / (b_s - a_s) if b_s > a_s else b
    return None


def _sum_of_means(by_device: Mapping[str, Sequence[float]]) -> float | None:
    means = [mean_of_known(values) for values in by_device.values()]
    return math.fsum(m for m in means if m is not None) if means and None not in means else None


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def _unknown(why: str) -> TelemetrySummary:
    return TelemetrySummary(reasons=dict.fromkeys(TELEMETRY_FIELDS, why))
