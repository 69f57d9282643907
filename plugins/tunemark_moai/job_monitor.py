"""Monitor a job from outside: read the platform's messages in its output, and sample the status tool.

A waiting program says so once and is then silent until it continues, which may take hours: queued is neither hung nor
running, and queue time enters no rate.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import TELEMETRY_FILE
from tunemark_moai.device_status import read_devices
from tunemark_moai.moreh_smi import read_physical_devices
from tunemark_moai.parallel_configuration import ParallelConfiguration
from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput
from tunemark_moai.tools import MoaiTools
from tunemark_moai.training_log import JobPhase, parse_messages, read_training_log

# The output of a job, in its folder.
LOG_NAMES = ("stdout.log", "stderr.log")
_POLL_S = 0.2
_WAITING: tuple[JobPhase, ...] = ("waiting for a process", "waiting in the queue")
# Bytes read from each end of a large log; the platform writes its messages at the beginning and the end.
_MAX_READ_BYTES = 4 << 20


class MoaiJobMonitor(AbstractContextManager["MoaiJobMonitor"]):
    """Monitors one job. sample_s: seconds between two calls of the status tool, which cost time."""

    def __init__(self, tools: MoaiTools, folder: Path, say: Callable[[str], None], sample_s: float) -> None:
        self._tools, self._folder, self._say, self._sample_s = tools, folder, say, sample_s
        self._positions = dict.fromkeys(LOG_NAMES, 0)
        self._phases: list[tuple[JobPhase, float, str]] = []
        self._used_mib: list[int] = []
        self._samples = self._failures = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._follow_log, self._sample_loop)]

    def __enter__(self) -> MoaiJobMonitor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._threads[0].join()
        # A sample in progress ends within the tools' time limit; it is not waited for.
        self._threads[1].join(timeout=1.0)
        self._read_output()

    def is_waiting(self) -> bool:
        phases = self._phases
        return bool(phases) and phases[-1][0] in _WAITING

    def facts(self) -> Mapping[str, Any]:
        log = read_training_log("\n".join(self._read_log(name) for name in LOG_NAMES))
        found: dict[str, Any] = {
            "states": [{"state": p, "instant_s": s, "utc": u} for p, s, u in self._phases],
            "samples": self._samples,
            "samples_failed": self._failures,
            "queue_s": self._queue_s(),
        }
        if log.searches:
            # There may be a search for each of several graph shapes; the last one is used for training.
            found["strategy_selected"] = next(
                (_to_strategy_selected(s.selected) for s in reversed(log.searches) if s.selected is not None), None
            )
            found["searches"] = [
                {
                    "candidates": s.candidates,
                    "possible": s.possible,
                    "compile_s": _to_seconds(s.compile_ms),
                    "cost_s": _to_seconds(s.cost_ms),
                }
                for s in log.searches
            ]
            spent = [ms for s in log.searches for ms in (s.compile_ms, s.cost_ms) if ms is not None]
            found["search_s"] = sum(spent) / 1000 if spent else None
        found.update(platform_version=log.version, job_id=log.job_id, nodes=log.nodes, accelerator=log.accelerator)
        if log.out_of_memory is not None:
            found["requested_bytes"] = log.out_of_memory.requested_bytes
            found["available_bytes"] = log.out_of_memory.available_bytes
        if log.failure is not None:
            found["failure"] = log.failure.text
        if self._used_mib:
            found["peak_memory_bytes"] = max(self._used_mib) << 20
        return {key: value for key, value in found.items() if value is not None}

    # -- the job's output

    def _follow_log(self) -> None:
        while not self._stopped.wait(_POLL_S):
            self._read_output()

    def _read_output(self) -> None:
        for name in LOG_NAMES:
            try:
                with open(self._folder / name, "rb") as file:
                    file.seek(self._positions[name])
                    new = file.read(_MAX_READ_BYTES)
            except OSError:
                continue
            whole = new[: new.rfind(b"\n") + 1] if len(new) < _MAX_READ_BYTES else new
            self._positions[name] += len(whole)
            for number, text in enumerate(whole.decode(errors="replace").splitlines(), 1):
                for message in parse_messages(TerminalLine(number=number, text=text)):
                    if message.phase is not None and (not self._phases or self._phases[-1][0] != message.phase):
                        self._start_phase(message.phase)

    def _start_phase(self, phase: JobPhase) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._phases.append((phase, time.monotonic(), now))
        self._say(f"moai: {phase}" + (" (this does not count towards the timeout)" if phase in _WAITING else ""))

    def _queue_s(self) -> float | None:
        """Seconds of waiting, for a process or in the queue; None where the platform printed no phase."""
        if not self._phases:
            return None
        ends = [*(at_s for _, at_s, _ in self._phases[1:]), time.monotonic()]
        return sum(end - begin for (phase, begin, _), end in zip(self._phases, ends, strict=True) if phase in _WAITING)

    def _read_log(self, name: str) -> str:
        try:
            with open(self._folder / name, "rb") as file:
                head = file.read(_MAX_READ_BYTES)
                size = file.seek(0, 2)
                file.seek(max(len(head), size - _MAX_READ_BYTES))
                return (head + file.read()).decode(errors="replace")
        except OSError:
            return ""

    # -- the status tool

    def _sample_loop(self) -> None:
        while True:
            row: dict[str, Any] = {"instant_s": time.monotonic()}
            try:
                row.update(self._sample())
                self._samples += 1
            except (TunemarkError, UnreadableOutput) as error:
                row["failure"] = error.what
                self._failures += 1
            with open(self._folder / TELEMETRY_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if self._stopped.wait(self._sample_s):
                return

    def _sample(self) -> dict[str, Any]:
        if self._tools.find("ap-smi"):
            return {"devices": [asdict(d) for d in read_devices(self._tools.printed("ap-smi")).devices]}
        reading = read_devices(self._tools.printed("moreh-smi"))
        self._used_mib += [d.memory_used_mib for d in reading.devices if d.memory_used_mib is not None and d.default]
        row: dict[str, Any] = {"devices": [asdict(d) for d in reading.devices]}
        # Not every version has the option that shows the physical devices, and no version's help mentions it.
        try:
            row["parts"] = [
                asdict(part) for part in read_physical_devices(self._tools.printed("moreh-smi", "-p")).parts
            ]
        except TunemarkError:
            row["parts"] = None
        return row


def _to_strategy_selected(configuration: ParallelConfiguration | None) -> dict[str, Any] | None:
    return None if configuration is None else {"strategy": "auto", **asdict(configuration)}


def _to_seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
