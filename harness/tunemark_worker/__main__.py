"""One rank of one attempt: `python -m tunemark_worker plan.json`, in the attempt's folder.

The work is in `worker_attempt`. The `end` record is always written before the process group is destroyed, because
destroying it can abort the process.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import sys
import time
import traceback
from datetime import datetime, timezone
from typing import Callable, List, Optional

from tunemark_worker.contract import LIFE_VARIABLE, PARENT_PID_VARIABLE, Assignment, records_file_name, stacks_file_name
from tunemark_worker.linux_proc import read_state, read_text
from tunemark_worker.out_of_memory import find_shortage, parse_available_bytes, parse_requested_bytes
from tunemark_worker.recorder import Recorder
from tunemark_worker.worker_attempt import WorkerAttempt


def main(plan: str) -> int:
    """Run one rank and return the exit code: 1 if the attempt failed, with the traceback on standard error."""
    rank = int(os.environ.get("RANK", "0"))
    name = records_file_name(rank, _restart_count(rank))
    recorder = Recorder(name, rank, time.monotonic, read_text(plan).encode())
    recorder.write(
        "start", pid=os.getpid(), python=platform.python_version(), utc=datetime.now(timezone.utc).isoformat()
    )
    _dump_stacks_on_signal(rank)
    interrupts: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: interrupts.append(received))
    attempt = WorkerAttempt()
    try:
        with open(plan, encoding="utf-8") as file:
            assignment = Assignment.from_json(file.read())
        is_orphaned = _make_orphan_check(os.environ.get(PARENT_PID_VARIABLE))
        reason = attempt.run(assignment, recorder, lambda: bool(interrupts) or is_orphaned())
    except (Exception, MemoryError) as error:
        # First, while the traceback still holds what the step held.
        shortage = find_shortage(error)
        traceback.print_exc()
        status = "error" if shortage is None else "oom"
        message = "{}: {}{}".format(type(error).__name__, error, "; " + shortage if shortage else "")
        recorder.write(
            "end",
            reason=status,
            status=status,
            error=message,
            requested_bytes=parse_requested_bytes(message),
            available_bytes=parse_available_bytes(message),
            **attempt.facts(),
        )
        # A peer rank may be dead, and an orderly destroy of the process group would wait for it.
        return _exit(1)
    recorder.write("end", reason=reason, status="ok", error=None, **attempt.facts())
    attempt.leave()
    return _exit(0)


def _exit(code: int) -> int:
    """Return the exit code, or with several ranks exit at once: the interpreter's teardown of the process group can
    hang or abort (gloo, torch 2.13), and everything is already written."""
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _restart_count(rank: int) -> int:
    """How often this rank was started before: the larger of its supervisor's count, which covers only one job, and the
    count of record files, which misses a process killed before it wrote anything."""
    restarts = int(os.environ.get(LIFE_VARIABLE, "0"))
    while os.path.exists(records_file_name(rank, restarts)):
        restarts += 1
    return restarts


def _make_orphan_check(parent: Optional[str], every_s: float = 1.0) -> Callable[[], bool]:
    """A function that says whether the parent process has died, so that the job ends too. It checks once per `every_s`
    seconds, and always says False if the parent is not on this host or there is no /proc."""
    if not parent or not read_state(int(parent)):
        return lambda: False
    checked_s = [time.monotonic()]

    def is_orphaned() -> bool:
        if time.monotonic() - checked_s[0] < every_s:
            return False
        checked_s[0] = time.monotonic()
        return read_state(int(parent)) in ("", "Z", "X")

    return is_orphaned


def _dump_stacks_on_signal(rank: int) -> None:
    """On SIGUSR1, write the stack of every thread to a file, even if the GIL is held."""
    if hasattr(faulthandler, "register"):  # absent on Windows
        # Stays open: the signal handler must not open files.
        descriptor = os.open(stacks_file_name(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
