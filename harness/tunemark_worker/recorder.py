"""Write a rank's records as lines of a file, complete even if the process is killed, and read the machine's load."""

from __future__ import annotations

import os
import resource
import time
from typing import Any, Callable, Dict, Optional

from tunemark_worker.contract import encode_record
from tunemark_worker.linux_proc import cpu_affinity, read_busy_s
from tunemark_worker.record_chain import add_link, first_link


class Recorder:
    """Appends records. A line is one write to a descriptor opened for appending: it is written completely or not."""

    def __init__(self, path: str, rank: int, clock: Callable[[], float], plan: bytes = b"") -> None:
        """plan: the content of plan.json, which begins the chain of lines."""
        self._link = first_link(plan, os.path.basename(path))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._rank, self._clock = rank, clock

    def write(self, kind: str, instant_s: Optional[float] = None, **fields: Any) -> None:
        """Write one record. instant_s: when it happened, if earlier than now."""
        record = encode_record(kind, self._rank, self._clock() if instant_s is None else instant_s, fields)
        line, link = add_link(self._link, record)
        before = os.fstat(self._descriptor).st_size
        written = os.write(self._descriptor, line)
        if written != len(line):
            # Remove the incomplete record, so that a later one that still fits starts on its own line.
            os.ftruncate(self._descriptor, before)
            raise OSError("the disk is full: {} of {} bytes of a record were written".format(written, len(line)))
        self._link = link


def read_load() -> Dict[str, Any]:
    """busy_s: CPU seconds so far of this process's cores, used by any process (None if unknown). own_s: CPU seconds of
    this process. minor_faults: of this process; they show how warm its allocator is."""
    return {
        "busy_s": read_busy_s(cpu_affinity()),
        "own_s": time.process_time(),
        "minor_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt,
    }
