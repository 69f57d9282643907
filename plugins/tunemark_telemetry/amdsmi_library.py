"""AMD GPUs by AMD SMI's Python library, `amdsmi`, a part of ROCm. Not run on hardware.

Each die is a separate device there: an MI250 is two. Only the first die of a package reports power and energy, for the
whole package. Source: AMD SMI documentation, "Python API" (rocm.docs.amd.com/projects/amdsmi), releases 6.2 to 7.0.
"""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import DeviceProcess, DeviceSample
from tunemark.plugin.protocols import MonitorReader
from tunemark_telemetry.amdsmi_program import AmdSmiProgramReader, list_causes
from tunemark_telemetry.package_energy import find_energy_counter

# Fields of `amdsmi_get_violation_status` for the current moment, and their meaning.
_THROTTLE_CAUSES = {
    "active_prochot_thrm": "heat, by the processor's signal",
    "active_socket_thrm": "heat of the socket",
    "active_vr_thrm": "heat of the voltage regulators",
    "active_hbm_thrm": "heat of the memory",
}
_POWER_CAP = "active_ppt_pwr"
# Status codes that mean that the device is gone: IO, NOT_FOUND, NOT_INIT, DRIVER_NOT_LOADED, AMDGPU_RESTART_ERR.
_GONE = (12, 31, 32, 34, 54)
# Fields for the package's power by chip, the momentary one first; the others are "N/A", or 0 on a second die.
_POWERS = ("current_socket_power", "socket_power", "average_socket_power")
# Values of `amdsmi_topo_get_link_type`, in the library's enumeration.
_LINK_TYPES = {0: "internal", 1: "pcie", 2: "xgmi"}


def make_reader() -> MonitorReader:
    """The library; where it cannot be imported, the program `amd-smi` if it is installed."""
    try:
        importlib.import_module("amdsmi")
    except Exception:  # it raises KeyError where there is no ROCm, OSError where its C library is missing
        if shutil.which("amd-smi"):
            return AmdSmiProgramReader()
    return AmdSmiLibraryReader()


class AmdSmiLibraryReader:
    """The library, opened for some dies. A value that a die does not report is None."""

    def __init__(self) -> None:
        self._smi: Any = None
        self._handles: dict[str, Any] = {}
        self._packages: dict[str, str | None] = {}
        self._all_packages: list[str | None] = []
        self._lost: dict[str, str] = {}

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        try:
            self._smi = importlib.import_module("amdsmi")
        # It raises KeyError where there is no ROCm, OSError where its C library is missing.
        except Exception as error:
            raise TunemarkError(
                what="no telemetry: amdsmi cannot be imported",
                why=f"{type(error).__name__}: {error}",
                next="install amd-smi-lib of ROCm, and its Python package from /opt/rocm/share/amd_smi",
            ) from error
        smi = self._smi
        try:
            smi.amdsmi_init()
            every = smi.amdsmi_get_processor_handles()
            missing = [name for name in devices if not name.isdigit() or int(name) >= len(every)]
            if missing:
                raise TunemarkError(
                    what=f"no telemetry: AMD SMI shows {len(every)} devices, and none is {missing[0]}",
                    next="see `amd-smi list`",
                )
            self._handles = {name: every[int(name)] for name in devices}
            self._all_packages = [self._package(handle) for handle in every]
            self._packages = {name: self._all_packages[int(name)] for name in devices}
            return {
                "driver": self._field(smi.amdsmi_get_gpu_driver_info, "driver_version", self._handles[devices[0]]),
                "each": {name: self._facts(name, handle) for name, handle in self._handles.items()},
                "links": self._links(),
            }
        except smi.AmdSmiException as error:
            raise TunemarkError(
                what=f"no telemetry: AMD SMI: {_error_text(error)}", next="check whether `amd-smi list` works here"
            ) from error

    def sample(self) -> Sequence[DeviceSample]:
        return [self._sample(name, handle) for name, handle in self._handles.items()]

    def close(self) -> None:
        self._smi.amdsmi_shut_down()

    def _query(self, function: Callable[..., Any] | None, *arguments: Any) -> Any:
        """The result of a function; None where it is not supported or fails. A lost device raises.
        function: None where this version has no such function."""
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._smi.AmdSmiException as error:
            if _code(error) in _GONE:
                raise
            return None

    def _field(self, function: Callable[..., Any] | None, name: str, *arguments: Any) -> Any:
        """One field of the dictionary that a function returns; the library writes "N/A" for an unknown value."""
        answer = self._query(function, *arguments)
        value = answer.get(name) if isinstance(answer, Mapping) else None
        return None if value == "N/A" else value

    def _number(self, function: Callable[..., Any] | None, name: str, *arguments: Any) -> float | None:
        value = self._field(function, name, *arguments)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

    def _package(self, handle: Any) -> str | None:
        """The number of the module on the board, which all dies of one package share."""
        found = self._field(self._smi.amdsmi_get_gpu_asic_info, "oam_id", handle)
        return None if found is None else str(found)

    def _facts(self, name: str, handle: Any) -> dict[str, Any]:
        smi = self._smi
        asic = self._query(smi.amdsmi_get_gpu_asic_info, handle) or {}
        package = self._packages[name]
        total_mb = self._number(smi.amdsmi_get_gpu_vram_usage, "vram_total", handle)
        return {
            "name": None if asic.get("market_name") in (None, "N/A") else asic["market_name"],
            "uuid": self._query(smi.amdsmi_get_gpu_device_uuid, handle),
            "memory_bytes": None if total_mb is None else int(total_mb) << 20,
            "package": package,
            "dies": self._all_packages.count(package) if package is not None else None,
            "power_limit_w": self._number(smi.amdsmi_get_power_info, "power_limit", handle),
        }

    def _links(self) -> list[list[str | None]]:
        def link(a: Any, b: Any) -> str | None:
            if a is b:
                return "self"
            kind = self._field(self._smi.amdsmi_topo_get_link_type, "type", a, b)
            return _LINK_TYPES.get(kind) if isinstance(kind, int) else None

        handles = list(self._handles.values())
        return [[link(a, b) for b in handles] for a in handles]

    def _sample(self, name: str, handle: Any) -> DeviceSample:
        smi = self._smi
        if name in self._lost:
            return DeviceSample(id=name, lost=self._lost[name])
        try:
            power = self._query(smi.amdsmi_get_power_info, handle) or {}
            count = self._query(smi.amdsmi_get_energy_count, handle)
            clock_mhz = self._number(smi.amdsmi_get_clock_info, "clk", handle, smi.AmdSmiClkType.GFX)
            hot = (handle, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT)
            temperature = self._query(smi.amdsmi_get_temp_metric, *hot)
            activity = self._number(smi.amdsmi_get_gpu_activity, "gfx_activity", handle)
            used_mb = self._number(smi.amdsmi_get_gpu_vram_usage, "vram_used", handle)
            violations = self._query(getattr(smi, "amdsmi_get_violation_status", None), handle)
            processes = self._query(smi.amdsmi_get_gpu_process_list, handle)
        except smi.AmdSmiException as error:
            self._lost[name] = f"AMD SMI: {_error_text(error)}"
            return DeviceSample(id=name, lost=self._lost[name])
        energy_j, shared, reason = self._energy(name, count)
        return DeviceSample(
            id=name,
            power_w=next((float(p) for p in map(power.get, _POWERS) if isinstance(p, (int, float)) and p > 0), None),
            energy_j=energy_j,
            shares_energy_of=shared,
            energy_reason=reason,
            temperature_c=float(temperature) if isinstance(temperature, (int, float)) else None,
            clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
            utilization=None if activity is None else activity / 100,
            memory_used_bytes=None if used_mb is None else int(used_mb) << 20,
            throttle=list_causes({word: _flag(violations, field) for field, word in _THROTTLE_CAUSES.items()}),
            power_capped=_flag(violations, _POWER_CAP),
            processes=None if processes is None else tuple(_process(p) for p in processes),
        )

    def _energy(self, name: str, count: Any) -> tuple[float | None, str | None, str | None]:
        """(joules, the die whose counter holds them, why there are none). resolution: microjoules per count."""
        whose, reason = find_energy_counter(name, self._all_packages, self._handles)
        if whose is not None or reason is not None:
            return None, whose, reason
        if not isinstance(count, Mapping):
            return None, None, None
        # Releases before 6.2 call the accumulator "power".
        counted, resolution = count.get("energy_accumulator", count.get("power")), count.get("counter_resolution")
        if not isinstance(counted, (int, float)) or not isinstance(resolution, (int, float)) or not counted:
            return None, None, f"AMD SMI counts no energy on device {name}"
        return counted * resolution * 1e-6, None, None


def _flag(violations: Any, field: str) -> bool | None:
    value = violations.get(field) if isinstance(violations, Mapping) else None
    return None if value in (None, "N/A") else bool(value)


def _process(process: Any) -> DeviceProcess:
    name = process.get("name")
    memory = process.get("memory_usage", {}).get("vram_mem", process.get("mem"))
    return DeviceProcess(
        pid=int(process["pid"]),
        command=None if name in (None, "N/A") else str(name),
        memory_bytes=int(memory) if isinstance(memory, (int, float)) else None,
    )


def _code(error: Exception) -> int | None:
    found = getattr(error, "err_code", None)
    return found if isinstance(found, int) else None


def _error_text(error: Exception) -> str:
    return str(getattr(error, "err_info", "") or " ".join(str(error).split()))
