"""NVML as nvidia-ml-py shows it, for two GPUs: names, arguments, units, structures and errors as documented there.

Source: NVML API reference (docs.nvidia.com/deploy/nvml-api); a test holds the names and arguments to the real module.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

from gpus import MEMORY, WATTS, Samples, joules, processes, wrong

NVML_SUCCESS = 0
NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_GPU_IS_LOST = 15
NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_SM = 1
NVML_TOPOLOGY_INTERNAL = 0
NVML_TOPOLOGY_SINGLE = 10
NVML_TOPOLOGY_MULTIPLE = 20
NVML_TOPOLOGY_HOSTBRIDGE = 30
NVML_TOPOLOGY_NODE = 40
NVML_TOPOLOGY_SYSTEM = 50
NVML_P2P_CAPS_INDEX_NVLINK = 2
NVML_P2P_STATUS_OK = 0
NVML_P2P_STATUS_NOT_SUPPORTED = 5
_WORDS = {1: "Uninitialized", 2: "Invalid Argument", 3: "Not Supported", 15: "GPU is lost"}
_HEAT, _POWER_CAP = 0x40, 0x4

_samples = Samples()
_is_open = False


class NVMLError(Exception):
    """value: the library's return code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _WORDS[self.value]


def nvmlInit() -> None:  # noqa: N802 - NVML's names
    global _is_open
    _is_open = True


def nvmlShutdown() -> None:  # noqa: N802
    global _is_open
    _check()
    _is_open = False


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    _check()
    return "575.57.08"


def nvmlSystemGetNVMLVersion() -> str:  # noqa: N802
    _check()
    return "12.575.57.08"


def nvmlSystemGetProcessName(pid: int) -> str:  # noqa: N802
    return next(name for gpu in (0, 1) for number, name in processes(gpu) if number == pid)


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    _check()
    if index not in (0, 1):
        _refuse(NVML_ERROR_INVALID_ARGUMENT)
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    _check()
    if uuid not in ("GPU-0", "GPU-1"):
        _refuse(NVML_ERROR_INVALID_ARGUMENT)
    return int(uuid[-1])


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return "NVIDIA H100 80GB HBM3"


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return f"GPU-{handle}"


def nvmlDeviceGetMemoryInfo(handle: int, version: Any = None) -> Any:  # noqa: N802
    return SimpleNamespace(total=MEMORY, used=MEMORY // 4, free=MEMORY - MEMORY // 4)


def nvmlDeviceGetEnforcedPowerLimit(handle: int) -> int:  # noqa: N802
    return 700_000


def nvmlDeviceGetPowerUsage(handle: int) -> int:  # noqa: N802
    """Milliwatts."""
    return int(1000 * WATTS[handle])


def nvmlDeviceGetTotalEnergyConsumption(handle: int) -> int:  # noqa: N802
    """Millijoules since the driver was loaded."""
    if _samples.is_lost(handle):
        _refuse(NVML_ERROR_GPU_IS_LOST)
    if handle in wrong("quiet"):
        _refuse(NVML_ERROR_NOT_SUPPORTED)
    return int(1000 * joules(handle))


def nvmlDeviceGetUtilizationRates(handle: int) -> Any:  # noqa: N802
    return SimpleNamespace(gpu=97, memory=40)


def nvmlDeviceGetClockInfo(handle: int, type: int) -> int:  # noqa: N802
    """MHz."""
    return 1200 if handle in wrong("throttle") else 1980


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:  # noqa: N802
    return 91 if handle in wrong("throttle") else 60


def nvmlDeviceGetCurrentClocksEventReasons(handle: int) -> int:  # noqa: N802
    return _HEAT * (handle in wrong("throttle")) | _POWER_CAP * (handle in wrong("capped"))


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[Any]:  # noqa: N802
    return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 30) for pid, _ in processes(handle)]


def nvmlDeviceGetP2PStatus(device1: int, device2: int, p2pIndex: int) -> int:  # noqa: N802, N803
    return NVML_P2P_STATUS_OK


def nvmlDeviceGetTopologyCommonAncestor(device1: int, device2: int) -> int:  # noqa: N802
    return NVML_TOPOLOGY_NODE


def _check() -> None:
    if not _is_open:
        _refuse(NVML_ERROR_UNINITIALIZED)


def _refuse(code: int) -> NoReturn:
    raise NVMLError(code)
