"""Heartbeat files, by which hosts with a shared file system see that a process on another host is alive.

A heartbeat is a counter, not a time, because clocks of hosts differ: a process is alive while its counter changes.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Dict, Optional, Tuple

from tunemark_worker.atomic_write import write_json
from tunemark_worker.linux_proc import read_text

# Seconds between two heartbeats, and without one until a process is taken for dead. A shared file system may show a
# change late: NFS by up to a minute unless the file is opened anew, which shows it at once.
HEARTBEAT_S = 1.0
HEARTBEAT_TIMEOUT_S = 20.0


class Heartbeat:
    """A file in which this process shows that it is alive, with other fields for its readers."""

    def __init__(self, path: str, **fields: Any) -> None:
        self._path, self._count, self._written_s = path, 0, 0.0
        self._fields: Dict[str, Any] = fields

    def beat_if_due(self) -> None:
        """Count up and write the file, unless that was done within the last HEARTBEAT_S seconds."""
        if time.monotonic() - self._written_s >= HEARTBEAT_S:
            self.update()

    def update(self, **fields: Any) -> None:
        """Change fields and write the file at once."""
        self._fields.update(fields)
        self._count += 1
        self._written_s = time.monotonic()
        with contextlib.suppress(OSError):  # on a full disk the heartbeat stops, which readers notice
            write_json(self._path, dict(self._fields, beat=self._count))


class HeartbeatReader:
    """Reads heartbeat files. Each read opens the file anew, so that a shared file system refreshes it."""

    def __init__(self) -> None:
        self._beats: Dict[str, Tuple[Any, Optional[float]]] = {}

    def read(self, path: str) -> Dict[str, Any]:
        """Fields of a file; empty if there is none, or if its heartbeat has stood still for too long."""
        text = read_text(path)
        try:
            fields: Dict[str, Any] = json.loads(text) if text else {}
        except ValueError:
            return {}
        now_s = time.monotonic()
        beat = fields.get("beat")
        previous, since_s = self._beats.get(path, (beat, None))
        if beat != previous:
            since_s = now_s
        self._beats[path] = beat, since_s
        return fields if since_s is not None and now_s - since_s <= HEARTBEAT_TIMEOUT_S else {}

    def is_dead(self, path: str) -> bool:
        """Whether the heartbeat changed at least once and then not for HEARTBEAT_TIMEOUT_S seconds."""
        since_s = self._beats.get(path, ("", None))[1]
        return since_s is not None and time.monotonic() - since_s > HEARTBEAT_TIMEOUT_S
