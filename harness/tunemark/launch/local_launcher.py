"""The launcher `local`: a job's processes on this host, started through `tunemark_worker.rank_supervisor` if there are
several or if they may be restarted.

The job runs in its own session, so Ctrl-C reaches only the parent, which passes it on as SIGTERM: the worker ends at
the next window's edge and keeps everything it has measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tunemark.plugin import JobSpec, LaunchConfig, StartedJob
from tunemark_worker import linux_proc
from tunemark_worker.contract import PARENT_PID_VARIABLE, code_variables
from tunemark_worker.host_agent import WORKER_PROGRAM
from tunemark_worker.rank_supervisor import HostShape

# Seconds that a worker has after SIGTERM to end at a window's edge, before it is killed.
_GRACE_S = 20.0
# By a signal, or by a debugger.
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class LocalLauncher:
    """Starts jobs on this host, one at a time, because concurrent jobs would slow each other down."""

    max_jobs = 1

    def __init__(
        self, options: Mapping[str, str], export: Sequence[str] = (), say: Callable[[str], None] = lambda words: None
    ) -> None:
        """export: unused, because processes on this host inherit every environment variable."""

    def check(self, launch: LaunchConfig, store: Path) -> None:
        """Nothing to check: what the device can plan on this host can be started here."""

    def start(self, job: JobSpec) -> StartedJob:
        return LocalJob(job)

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """None: nobody followed its processes in the meantime, so what ran next to them is unknown."""
        return None

    def close(self) -> None:
        pass


class LocalJob:
    """A job's processes on this host. program: interpreter arguments of each process, run in the job's folder."""

    def __init__(self, job: JobSpec, program: Sequence[str] = WORKER_PROGRAM) -> None:
        self._folder = job.folder
        variables = {**os.environ, **job.environment, **code_variables(str(job.code))}
        # PYTHONHOME would replace the worker's standard library; the interpreter was also queried without it.
        variables.pop("PYTHONHOME", None)
        variables[PARENT_PID_VARIABLE] = str(os.getpid())
        shape = HostShape(1, 0, job.processes, job.max_restarts)
        variables.update(shape.variables())
        with open(job.folder / "stdout.log", "wb") as out, open(job.folder / "stderr.log", "wb") as err:
            self._process = subprocess.Popen(
                shape.command(job.python, program),
                cwd=job.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        return self._process.poll()

    def is_waiting(self) -> bool:
        return False

    def interrupt(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)

    def stacks(self, pids: Mapping[int, int]) -> str:
        states = {rank: state for rank, pid in pids.items() if (state := _state(pid, self._folder))}
        for rank in states:
            # A stopped rank is continued, so that it writes the stacks of the point where it was stopped.
            for number in (signal.SIGUSR1, signal.SIGCONT):
                linux_proc.send_signal(pids[rank], number)
        return "; ".join(f"rank {rank} was stopped" for rank, state in sorted(states.items()) if state in _STOPPED)

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if self._process.poll() is None and graceful:
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        # A rank that has left the group by a session of its own.
        for pid in pids.values():
            if _state(pid, self._folder):
                linux_proc.send_signal(pid, signal.SIGKILL)

    def facts(self) -> Mapping[str, Any]:
        return {}

    def _signal(self, number: int) -> None:
        linux_proc.send_group_signal(self._process.pid, number)


def _state(pid: int, folder: Path) -> str | None:
    """The state of a rank, as psutil names it; None if the rank is gone. A reused pid shows by its working directory: a
    rank works in its attempt's folder."""
    try:
        process = psutil.Process(pid)
        return process.status() if os.path.samefile(process.cwd(), folder) else None
    except (OSError, psutil.Error):
        return None
