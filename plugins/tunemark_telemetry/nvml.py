"""NVIDIA GPUs by NVML, through nvidia-ml-py (`import pynvml`). Not run on hardware.

Source: NVML API reference, "Device Queries", "Event reasons", "NvLink methods" (docs.nvidia.com/deploy/nvml-api).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import DeviceProcess, DeviceSample

# Bits of the clocks' event reasons (formerly throttle reasons) that mean throttling. Idle clocks, clocks set by a user
# and synchronised boost are not; the power cap is normal under load, and is reported separately.
_CAUSES = {
    0x8: "hardware slowdown",
    0x20: "heat, by the driver",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}
_POWER_CAP = 0x4
# Return codes that mean that the device is lost: NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED.
_GONE = (15, 16)


class NvmlReader:
    """The library, opened for some GPUs. A value that a GPU does not support is None."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[str, Any] = {}
        self._lost: dict[str, str] = {}

    def open(self, devices: Sequence[str]) -> Mapping[str, Any]:
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError as error:
            raise TunemarkError(
                what="no telemetry: the module pynvml is not installed",
                why=str(error),
                next="pip install 'tunemark[nvidia]'",
            ) from error
        n = self._nvml
        try:
            n.nvmlInit()
            for name in devices:
                self._handles[name] = self._handle(name)
            each = {name: self._facts(handle) for name, handle in self._handles.items()}
            links = self._links()
        except n.NVMLError as error:
            raise TunemarkError(
                what=f"no telemetry: NVML: {error}",
                why=f"opened for GPU {', '.join(devices)}",
                next="check whether nvidia-smi works in this environment",
            ) from error
        return {
            "driver": _text(self._query(n.nvmlSystemGetDriverVersion)),
            "library": _text(self._query(n.nvmlSystemGetNVMLVersion)),
            "each": each,
            "links": links,
        }

    def sample(self) -> Sequence[DeviceSample]:
        return [self._sample(name, handle) for name, handle in self._handles.items()]

    def close(self) -> None:
        self._nvml.nvmlShutdown()

    def _handle(self, name: str) -> Any:
        if name.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(name)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(name))

    def _query(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function; None where it fails in any way, except that a lost device raises."""
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) in _GONE:
                raise
            return None

    def _facts(self, handle: Any) -> dict[str, Any]:
        n = self._nvml
        memory = self._query(n.nvmlDeviceGetMemoryInfo, handle)
        limit_mw = self._query(n.nvmlDeviceGetEnforcedPowerLimit, handle)
        return {
            "name": _text(self._query(n.nvmlDeviceGetName, handle)),
            "uuid": _text(self._query(n.nvmlDeviceGetUUID, handle)),
            "memory_bytes": None if memory is None else int(memory.total),
            "power_limit_w": None if limit_mw is None else limit_mw / 1000,
        }

    def _links(self) -> list[list[str | None]]:
        """For each pair of devices: "nvlink", or the nearest bridge that they share; None is unknown."""
        n = self._nvml
        near = {
            n.NVML_TOPOLOGY_INTERNAL: "same board",
            n.NVML_TOPOLOGY_SINGLE: "one PCIe switch",
            n.NVML_TOPOLOGY_MULTIPLE: "PCIe switches",
            n.NVML_TOPOLOGY_HOSTBRIDGE: "PCIe host bridge",
            n.NVML_TOPOLOGY_NODE: "NUMA node",
            n.NVML_TOPOLOGY_SYSTEM: "sockets",
        }

        def link(a: Any, b: Any) -> str | None:
            if a is b:
                return "self"
            status = self._query(n.nvmlDeviceGetP2PStatus, a, b, n.NVML_P2P_CAPS_INDEX_NVLINK)
            if status == n.NVML_P2P_STATUS_OK:
                return "nvlink"
            level = self._query(n.nvmlDeviceGetTopologyCommonAncestor, a, b)
            return None if level is None else near.get(level)

        handles = list(self._handles.values())
        return [[link(a, b) for b in handles] for a in handles]

    def _sample(self, name: str, handle: Any) -> DeviceSample:
        n = self._nvml
        if name in self._lost:
            return DeviceSample(id=name, lost=self._lost[name])
        try:
            power_mw = self._query(n.nvmlDeviceGetPowerUsage, handle)
            energy_mj = self._query(n.nvmlDeviceGetTotalEnergyConsumption, handle)
            memory = self._query(n.nvmlDeviceGetMemoryInfo, handle)
            use = self._query(n.nvmlDeviceGetUtilizationRates, handle)
            clock_mhz = self._query(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM)
            temperature = self._query(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU)
            reasons = self._query(_reasons_function(n), handle)
            processes = self._query(n.nvmlDeviceGetComputeRunningProcesses, handle)
        except n.NVMLError as error:
            self._lost[name] = f"NVML: {error}"
            return DeviceSample(id=name, lost=self._lost[name])
        return DeviceSample(
            id=name,
            power_w=None if power_mw is None else power_mw / 1000,
            energy_j=None if energy_mj is None else energy_mj / 1000,
            energy_reason="NVML counts no energy on this GPU (it does from Volta on)" if energy_mj is None else None,
            temperature_c=None if temperature is None else float(temperature),
            clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
            utilization=None if use is None else use.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            throttle=None if reasons is None else tuple(word for bit, word in _CAUSES.items() if reasons & bit),
            power_capped=None if reasons is None else bool(reasons & _POWER_CAP),
            processes=None if processes is None else tuple(self._process(p) for p in processes),
        )

    def _process(self, process: Any) -> DeviceProcess:
        name = None
        with contextlib.suppress(self._nvml.NVMLError):
            name = _text(self._nvml.nvmlSystemGetProcessName(process.pid))
        used = process.usedGpuMemory
        return DeviceProcess(pid=int(process.pid), command=name, memory_bytes=None if used is None else int(used))


def _reasons_function(nvml: Any) -> Callable[..., Any]:
    """The function for the reasons of low clocks: every version has the older name, R535 and later the newer one."""
    newer = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    found: Callable[..., Any] = newer or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return found


def _text(value: Any) -> str | None:
    """Older versions of the module return bytes."""
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
