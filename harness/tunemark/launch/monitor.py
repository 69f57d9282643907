"""Sample a job's devices while it runs, in a thread of this process, and keep what was seen in the attempt's folder.

About once a second, beside the worker and never inside it. A library that fails, hangs or is not there is a line in the
file and no more: a measurement does not depend on being watched.
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

from tunemark.errors import TunemarkError
from tunemark.plugin import Accelerator, Catalog, Device, DeviceProcess, HasMonitor, MonitorReader
from tunemark.plugin.catalog import load

FILE = "telemetry.jsonl"
# Seconds between two samples; the variable that sets others, 0 for none at all.
SAMPLE_S = 1.0
VARIABLE = "TUNEMARK_TELEMETRY_S"
# Seconds that an answer under way may take when the job has ended; who hangs longer is left behind.
_PATIENCE_S = 2.0


class Monitoring(AbstractContextManager["Monitoring"]):
    """One job's devices, sampled from before its launch until after its end.

    It begins with a sample of its own, so that whoever is on a device before the job is known not to be of it."""

    def __init__(self, reader: MonitorReader, monitor: str, devices: tuple[str, ...], folder: Path, sample_s: float):
        self._reader, self._monitor, self._devices = reader, monitor, devices
        self._path, self._sample_s = folder / FILE, sample_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tunemark-monitor", daemon=True)
        self._is_open = False
        self._before: set[int] | None = None

    def __enter__(self) -> Monitoring:
        try:
            facts = dict(self._reader.open(self._devices))
        # A vendor's library is on the other side: amdsmi raises KeyError where there is no driver.
        except Exception as error:
            self._write(kind="open", **_named(self._monitor, self._devices), failure=_words(self._monitor, error))
            return self
        self._is_open = True
        self._write(kind="open", **_named(self._monitor, self._devices), failure="", sample_s=self._sample_s, **facts)
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._over.set()
        self._thread.join(_PATIENCE_S)

    def _watch(self) -> None:
        while not self._over.wait(self._sample_s):
            self._sample()
        # Once more, so that the last window lies between two samples.
        self._sample()
        with contextlib.suppress(Exception):  # as in sampling
            self._reader.close()

    def _sample(self) -> None:
        began_s = time.monotonic()
        try:
            samples = list(self._reader.sample())
        except Exception as error:  # as in opening
            self._write(kind="sample", instant_s=began_s, devices=[], failure=_words(self._monitor, error))
            return
        # What a counter says lies between asking and answer.
        instant_s = (began_s + time.monotonic()) / 2
        present = {p.pid for s in samples for p in s.processes or ()}
        if self._before is None:
            self._before = present
        rows = []
        for sample in samples:
            row = {k: v for k, v in asdict(sample).items() if v is not None and v != ""}
            if sample.processes is not None:
                row["processes"] = [self._process(p) for p in sample.processes]
            rows.append(row)
        self._write(kind="sample", instant_s=instant_s, devices=rows)

    def _process(self, process: DeviceProcess) -> dict[str, Any]:
        is_ours = _is_ours(process.pid)
        if is_ours is None and self._before is not None and process.pid in self._before:
            is_ours = False  # it was there before the job
        return {**asdict(process), "is_ours": is_ours}

    def _write(self, **row: Any) -> None:
        # Where the disk is full the job will say so itself.
        with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")


def monitoring(
    device: Device,
    accelerator: Accelerator,
    catalog: Catalog,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = lambda words: None,
) -> AbstractContextManager[Any]:
    """What samples the devices of a job in `folder`; nothing where nobody tells of them, which the file then says."""
    try:
        named = device.monitored(accelerator) if isinstance(device, HasMonitor) else None
        if named is None:
            return contextlib.nullcontext()
        sample_s = float(environment.get(VARIABLE, SAMPLE_S))
        if sample_s <= 0:
            return contextlib.nullcontext()
        reader: MonitorReader = load(catalog.monitor(named.monitor).loader)()
        return Monitoring(reader, named.monitor, tuple(named.devices), folder, sample_s)
    except Exception as error:  # a stranger's device or monitor is on the other side
        say(f"{device.name} is not sampled: {_words('its monitor', error)}")
        return contextlib.nullcontext()


def _is_ours(pid: int) -> bool | None:
    """Whether a process is this one or was started by it; None where its number means nothing here."""
    for _ in range(64):
        if pid == os.getpid():
            return True
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # pid (command) state ppid ...; the command may hold anything.
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        if pid <= 1:
            return False
    return False


def _named(monitor: str, devices: tuple[str, ...]) -> dict[str, Any]:
    return {"monitor": monitor, "devices": list(devices)}


def _words(monitor: str, error: Exception) -> str:
    if isinstance(error, TunemarkError):
        return "; ".join(" ".join(part.split()) for part in (error.what, error.why, error.next) if part)
    return f"{monitor}: {type(error).__name__}: {error}"
