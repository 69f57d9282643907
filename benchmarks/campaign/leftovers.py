"""What a command left behind: processes, and files in folders that are not its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from campaign.cases import find_processes


def end_processes(folder: Path) -> None:
    """Kill what still works in a folder of the campaign's own."""
    for pid in find_processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def count_left(folder: Path, within_s: float = 30.0, ours: Callable[[int], bool] = lambda pid: False) -> int:
    """How many processes are still there after the moment that an end may take. ours: those that do not count."""
    until_s = time.monotonic() + within_s
    while (found := [pid for pid in find_processes(folder) if not ours(pid)]) and time.monotonic() < until_s:
        time.sleep(0.05)
    return len(found)
