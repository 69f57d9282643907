"""AMD GPUs by the program `amd-smi`, where its Python library is missing. Not run on hardware.

Each sample starts the program, which takes about half a second of a core, so it is a fallback. Energy is read in the
middle of that time, so it is uncertain by half a second's worth on either side.
Source: AMD SMI documentation, "CLI tool usage" (rocm.docs.amd.com/projects/amdsmi), releases 6.2 to 7.1: a list of
objects, one for each GPU, since 7.0 also inside `gpu_data`; a value is a number, {"value", "unit"}, or "N/A".
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import DeviceProcess, DeviceSample
from tunemark_telemetry.package_energy import find_energy_counter

_TIMEOUT_S = 20.0
_METRICS = ("--mem-usage", "--usage", "--power", "--clock", "--temperature", "--energy")
# Since 6.3; earlier releases end with an error.
_THROTTLE = "--throttle"
# Samples between two queries of the processes, each of which starts the program once more.
_PROCESSES_EVERY = 10
# Fields of `metric --throttle` for the current moment, and their meaning.
_THROTTLE_CAUSES = {
    "prochot_violation_status": "heat, by the processor's signal",
    "socket_thermal_violation_status": "heat of the socket",
    "vr_thermal_violation_status": "heat of the voltage regulators",
    "hbm_thermal_violation_status": "heat of the memory",
}
_POWER_CAP = "ppt_violation_status"
_LINK_TYPES = {"SELF": "self", "PCIE": "pcie", "XGMI": "xgmi"}


class AmdSmiProgramReader:
    """The program, queried for some dies. A value that it does not report is None."""

    def __init__(self) -> None:
        self._devices: tuple[str, ...] = ()
        self._packages: list[str | None] = []
        self._metrics: tuple[str, ...] = (*_METRICS, _THROTTLE)
        self._lost: dict[str, str] = {}
        self._samples = 0

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        self._devices = tuple(devices)
        rows = _run("static", "--asic", "--vram", "--driver", "--limit")
        missing = [name for name in devices if name not in rows]
        if missing:
            raise TunemarkError(
                what=f"no telemetry: amd-smi shows {len(rows)} devices, and none is {missing[0]}",
                next="see `amd-smi list`",
            )
        self._packages = [_to_text(_group(rows[name], "asic").get("oam_id")) for name in rows]
        try:
            _run("metric", *self._metrics)
        except TunemarkError:
            self._metrics = _METRICS
        return {
            "driver": _to_text(_group(rows[devices[0]], "driver").get("version")),
            "source": "amd-smi --json, one start of the program a sample",
            "each": {name: self._facts(rows[name]) for name in devices},
            "links": self._links(),
        }

    def sample(self) -> Sequence[DeviceSample]:
        rows = _run("metric", *self._metrics)
        processes = _run("process") if self._samples % _PROCESSES_EVERY == 0 else {}
        self._samples += 1
        return [self._sample(name, rows.get(name), processes.get(name)) for name in self._devices]

    def close(self) -> None:
        pass

    def _facts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        asic = _group(row, "asic")
        package = _to_text(asic.get("oam_id"))
        size = _number(_group(row, "vram").get("size"))
        return {
            "name": _to_text(asic.get("market_name")),
            "uuid": None,
            "memory_bytes": None if size is None else int(size) << 20,
            "package": package,
            "dies": self._packages.count(package) if package is not None else None,
            "power_limit_w": _number(_group(row, "limit").get("socket_power")),
        }

    def _links(self) -> list[list[str | None]]:
        """From `amd-smi topology --json` since 6.3; None for other forms of output."""
        try:
            rows = _run("topology")
        except TunemarkError:
            rows = {}

        def link(a: str, b: str) -> str | None:
            found = rows.get(a, {}).get("links")
            for each in found if isinstance(found, list) else ():
                if isinstance(each, dict) and str(each.get("gpu")) == b:
                    return _LINK_TYPES.get(str(each.get("link_type")))
            return None

        return [[link(a, b) for b in self._devices] for a in self._devices]

    def _sample(self, name: str, row: Mapping[str, Any] | None, processes: Mapping[str, Any] | None) -> DeviceSample:
        if row is None:
            self._lost.setdefault(name, "amd-smi no longer shows it")
        if name in self._lost:
            return DeviceSample(id=name, lost=self._lost[name])
        assert row is not None, "otherwise it is lost"
        power, throttle = _group(row, "power"), _group(row, "throttle")
        counted = _number(_group(row, "energy").get("total_energy_consumption"))
        whose, reason = find_energy_counter(name, self._packages, self._devices)
        if counted is None and whose is None and reason is None:
            reason = f"amd-smi counts no energy on device {name}"
        clock_mhz = _number(_group(_group(row, "clock"), "gfx_0").get("clk"))
        activity = _number(_group(row, "usage").get("gfx_activity"))
        used = _number(_group(row, "mem_usage").get("used_vram"))
        flags = {word: _to_bool(throttle.get(field)) for field, word in _THROTTLE_CAUSES.items()}
        power_w = _number(power.get("socket_power"))
        return DeviceSample(
            id=name,
            power_w=power_w or None,  # a second die reports 0
            energy_j=None if whose is not None or reason is not None else counted,
            shares_energy_of=whose,
            energy_reason=reason,
            temperature_c=_number(_group(row, "temperature").get("hotspot")),
            clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
            utilization=None if activity is None else activity / 100,
            memory_used_bytes=None if used is None else int(used) << 20,
            throttle=list_causes(flags),
            power_capped=_to_bool(throttle.get(_POWER_CAP)),
            processes=None if processes is None else _processes(processes),
        )


def _run(*words: str) -> dict[str, dict[str, Any]]:
    """The rows that the program prints, by GPU number. TunemarkError where it prints none."""
    command = ["amd-smi", *words, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise TunemarkError(what=f"no telemetry: `{' '.join(command)}` does not run", why=str(error)) from error
    # It may print warnings before the JSON.
    begin = min((at for at in (done.stdout.find("["), done.stdout.find("{")) if at >= 0), default=0)
    try:
        parsed = json.loads(done.stdout[begin:])
        found = parsed.get("gpu_data", []) if isinstance(parsed, dict) else parsed
        rows = {str(row["gpu"]): row for row in found if isinstance(row, dict)}
    except (ValueError, KeyError, TypeError) as error:
        raise TunemarkError(
            what=f"no telemetry: the output of `{' '.join(command)}` is not understood",
            why=f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}",
        ) from error
    if done.returncode:
        raise TunemarkError(
            what=f"no telemetry: `{' '.join(command)}` ends with code {done.returncode}",
            why=done.stderr.strip()[:200],
        )
    return rows


def _group(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One group of a row; empty where the whole group is "N/A"."""
    found = row.get(name)
    return found if isinstance(found, Mapping) else {}


def _to_text(value: Any) -> str | None:
    return None if value in (None, "N/A", "") else str(value)


def _number(value: Any) -> float | None:
    found = value.get("value") if isinstance(value, Mapping) else value
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not math.isfinite(found):
        return None
    return float(found)


def _to_bool(value: Any) -> bool | None:
    return {"ACTIVE": True, "NOT ACTIVE": False, True: True, False: False}.get(value) if value != "N/A" else None


def list_causes(flags: Mapping[str, bool | None]) -> tuple[str, ...] | None:
    """The causes whose flag is set; None if no flag is known."""
    if all(flag is None for flag in flags.values()):
        return None
    return tuple(word for word, flag in flags.items() if flag)


def _processes(row: Mapping[str, Any]) -> tuple[DeviceProcess, ...]:
    """The processes of a row of `amd-smi process`; an empty list is a text there."""
    found = []
    for each in row.get("process_list") or ():
        process = each.get("process_info") if isinstance(each, Mapping) else None
        if not isinstance(process, Mapping) or not str(process.get("pid")).isdigit():
            continue
        memory = _number(_group(process, "memory_usage").get("vram_mem", process.get("mem_usage")))
        found.append(
            DeviceProcess(
                pid=int(process["pid"]),
                command=_to_text(process.get("name")),
                memory_bytes=None if memory is None else int(memory),
            )
        )
    return tuple(found)
