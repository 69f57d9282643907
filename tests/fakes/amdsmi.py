"""AMD SMI's Python library for two dies: names, arguments, dictionaries, units and errors as documented there.

Source: AMD SMI documentation, "Python API" (rocm.docs.amd.com/projects/amdsmi), release 7.0; a test holds the names and
arguments to the real module's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from gpus import MEMORY, WATTS, Samples, joules, processes, wrong

AMDSMI_STATUS_NOT_SUPPORTED = 2
AMDSMI_STATUS_NOT_FOUND = 31
# Microjoules for each count, as an MI200 has it.
_RESOLUTION = 15.259
_WORDS = {
    2: "AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported",
    31: "AMDSMI_STATUS_NOT_FOUND - Device Not found",
}

_samples = Samples()


class AmdSmiException(Exception):  # noqa: N818 - AMD's name
    """Of which all others are."""


class AmdSmiLibraryException(AmdSmiException):
    """err_code: the library's status."""

    def __init__(self, err_code: int) -> None:
        super().__init__(err_code)
        self.err_code = err_code
        self.err_info = _WORDS[err_code]

    def get_error_code(self) -> int:
        return self.err_code


class AmdSmiClkType(IntEnum):
    SYS = 0
    GFX = 0


class AmdSmiTemperatureType(IntEnum):
    EDGE = 0
    HOTSPOT = 1


class AmdSmiTemperatureMetric(IntEnum):
    CURRENT = 0


def amdsmi_init(flag: Any = None) -> None:
    pass


def amdsmi_shut_down() -> None:
    pass


def amdsmi_get_processor_handles() -> list[int]:
    return [0, 1]


def amdsmi_get_gpu_driver_info(processor_handle: int) -> dict[str, Any]:
    return {"driver_name": "amdgpu", "driver_version": "6.12.12", "driver_date": "N/A"}


def amdsmi_get_gpu_asic_info(processor_handle: int) -> dict[str, Any]:
    module = 0 if wrong("package", False) else processor_handle
    return {"market_name": "AMD Instinct MI250X", "oam_id": module, "num_compute_units": 110}


def amdsmi_get_gpu_device_uuid(processor_handle: int) -> str:
    return f"00ff740f-0000-1000-8000-00000000000{processor_handle}"


def amdsmi_get_gpu_vram_usage(processor_handle: int) -> dict[str, Any]:
    """MiB."""
    return {"vram_total": MEMORY >> 20, "vram_used": MEMORY >> 22}


def amdsmi_get_power_info(processor_handle: int) -> dict[str, Any]:
    power = "N/A" if _is_second(processor_handle) else WATTS[processor_handle]
    return {"socket_power": "N/A", "current_socket_power": "N/A", "average_socket_power": power, "power_limit": 560}


def amdsmi_get_energy_count(processor_handle: int) -> dict[str, Any]:
    if _samples.is_lost(processor_handle):
        raise AmdSmiLibraryException(AMDSMI_STATUS_NOT_FOUND)
    if processor_handle in wrong("quiet"):
        raise AmdSmiLibraryException(AMDSMI_STATUS_NOT_SUPPORTED)
    counted = 0 if _is_second(processor_handle) else int(joules(processor_handle) * 1e6 / _RESOLUTION)
    return {"energy_accumulator": counted, "counter_resolution": _RESOLUTION, "timestamp": 0}


def amdsmi_get_clock_info(processor_handle: int, clock_type: AmdSmiClkType) -> dict[str, Any]:
    clock = 900 if processor_handle in wrong("throttle") else 1700
    return {"clk": clock, "min_clk": 500, "max_clk": 1700, "clk_locked": "N/A", "clk_deep_sleep": "N/A"}


def amdsmi_get_temp_metric(
    processor_handle: int, sensor_type: AmdSmiTemperatureType, metric: AmdSmiTemperatureMetric
) -> int:
    return 105 if processor_handle in wrong("throttle") else 70


def amdsmi_get_gpu_activity(processor_handle: int) -> dict[str, Any]:
    return {"gfx_activity": 99, "umc_activity": 50, "mm_activity": "N/A"}


def amdsmi_get_violation_status(processor_handle: int) -> dict[str, Any]:
    return {
        "active_prochot_thrm": False,
        "active_socket_thrm": processor_handle in wrong("throttle"),
        "active_vr_thrm": "N/A",
        "active_hbm_thrm": False,
        "active_ppt_pwr": processor_handle in wrong("capped"),
    }


def amdsmi_get_gpu_process_list(processor_handle: int) -> list[dict[str, Any]]:
    memory = {"gtt_mem": 0, "cpu_mem": 0, "vram_mem": 1 << 30}
    found = processes(processor_handle)
    return [{"name": name, "pid": pid, "mem": 1 << 30, "memory_usage": memory} for pid, name in found]


def amdsmi_topo_get_link_type(processor_handle_src: int, processor_handle_dst: int) -> dict[str, int]:
    return {"hops": 1, "type": 2}


def _is_second(handle: int) -> bool:
    return handle == 1 and wrong("package", False)
