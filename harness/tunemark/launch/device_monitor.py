"""Sample a job's devices while it runs, in a thread of this process, and write the samples to the attempt's folder.

About once a second, in the parent and never in the worker. A library that fails, hangs or is missing becomes a line in
the file: a measurement never depends on its monitoring.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tunemark.errors import TunemarkError
from tunemark.plugin import Accelerator, Catalog, Device, DeviceProcess, HasMonitor, MonitorReader
from tunemark.plugin.catalog import load_object
from tunemark.plugin.descriptors import TELEMETRY_FILE

# Seconds between two samples, and the environment variable that overrides it; 0 turns sampling off.
SAMPLE_S = 1.0
SAMPLE_S_VARIABLE = "TUNEMARK_TELEMETRY_S"
# Seconds that the last sample may take after the job has ended; a thread that hangs longer is abandoned.
_JOIN_TIMEOUT_S = 2.0


class DeviceMonitor(AbstractContextManager["DeviceMonitor"]):
    """Samples one job's devices from before its launch until after its end.

    The first sample comes before the launch, so that processes already on a device are known not to be the job's."""

    def __init__(self, reader: MonitorReader, monitor: str, devices: tuple[str, ...], folder: Path, sample_s: float):
        self._reader, self._monitor, self._devices = reader, monitor, devices
        self._path, self._sample_s = folder / TELEMETRY_FILE, sample_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="tunemark-monitor", daemon=True)
        self._is_open = False
        # A thread that was abandoned writes nothing into an attempt that is sealed by then.
        self._is_over = False
        self._pids_before: set[int] | None = None

    def __enter__(self) -> DeviceMonitor:
        try:
            facts = dict(self._reader.open(self._devices))
        # A vendor's library may raise anything: amdsmi raises KeyError if there is no driver.
        except Exception as error:
            self._write(kind="open", **_target(self._monitor, self._devices), failure=_describe(self._monitor, error))
            return self
        self._is_open = True
        self._write(kind="open", **_target(self._monitor, self._devices), failure="", sample_s=self._sample_s, **facts)
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT_S)
        self._is_over = True

    def _sample_until_stopped(self) -> None:
        while not self._stop.wait(self._sample_s):
            self._sample()
        # Once more, so that the last window is between two samples.
        self._sample()
        with contextlib.suppress(Exception):  # as in sampling
            self._reader.close()

    def _sample(self) -> None:
        began_s = time.monotonic()
        try:
            samples = list(self._reader.sample())
        except Exception as error:  # as in opening
            self._write(kind="sample", instant_s=began_s, devices=[], failure=_describe(self._monitor, error))
            return
        # A counter's value is from some time during the call.
        instant_s = (began_s + time.monotonic()) / 2
        pids = {p.pid for s in samples for p in s.processes or ()}
        if self._pids_before is None:
            self._pids_before = pids
        rows = []
        for sample in samples:
            row = {k: v for k, v in asdict(sample).items() if v is not None and v != ""}
            if sample.processes is not None:
                row["processes"] = [self._process_row(p) for p in sample.processes]
            rows.append(row)
        self._write(kind="sample", instant_s=instant_s, devices=rows)

    def _process_row(self, process: DeviceProcess) -> dict[str, Any]:
        is_ours = _is_ours(process.pid)
        if is_ours is None and self._pids_before is not None and process.pid in self._pids_before:
            is_ours = False  # it was there before the job
        return {**asdict(process), "is_ours": is_ours}

    def _write(self, **row: Any) -> None:
        if self._is_over:
            return
        # On a full disk the job itself will fail and say so.
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")


def make_device_monitor(
    device: Device,
    accelerator: Accelerator,
    catalog: Catalog,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = lambda words: None,
) -> AbstractContextManager[Any]:
    """A context that samples the devices of a job in `folder`; does nothing if they have no monitor."""
    try:
        target = device.monitor_target(accelerator) if isinstance(device, HasMonitor) else None
        if target is None:
            return contextlib.nullcontext()
        sample_s = float(environment.get(SAMPLE_S_VARIABLE, SAMPLE_S))
        if sample_s <= 0:
            return contextlib.nullcontext()
        reader: MonitorReader = load_object(catalog.monitor(target.monitor).loader)()
        return DeviceMonitor(reader, target.monitor, tuple(target.devices), folder, sample_s)
    except Exception as error:  # third-party code may raise anything
        say(f"{device.name} is not sampled: {_describe('its monitor', error)}")
        return contextlib.nullcontext()


def _is_ours(pid: int) -> bool | None:
    """Whether a process is this one or a descendant of it; None if this host does not know its pid."""
    try:
        process = psutil.Process(pid)
        return os.getpid() in (pid, *(parent.pid for parent in process.parents()))
    # ValueError: no pid at all.
    except (psutil.Error, ValueError):
        return None


def _target(monitor: str, devices: tuple[str, ...]) -> dict[str, Any]:
    return {"monitor": monitor, "devices": list(devices)}


def _describe(monitor: str, error: Exception) -> str:
    if isinstance(error, TunemarkError):
        return error.one_line()
    return f"{monitor}: {type(error).__name__}: {error}"
