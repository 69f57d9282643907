"""Start a job's processes on this host, follow their records as they are written, and say how they ended.

Success is judged by the records first and the exit code second: every rank writes its `end` before teardown.
The job is a session of its own, so Ctrl-C reaches the parent alone, which passes it on as SIGTERM: the worker ends
at the next window's edge and keeps all that it measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunemark_worker.contract import decode, records_name

Status = Literal["ok", "oom", "error", "killed", "timeout"]

# Seconds between two looks at the records: a person sees it as live, and 20 looks a second cost the host nothing.
_POLL_S = 0.05
# Seconds that a worker has to end at a window's edge after SIGTERM, before it is killed.
_GRACE_S = 20.0
# Seconds that a job may take for its teardown once every rank has written its end: gloo can hang there, and the
# measurement is whole already.
_TEARDOWN_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How an attempt ended. evidence: what shows it (a line of stderr, an exit code, the kernel's count of kills)."""

    status: Status
    reason: str
    evidence: str


def command(python: str, processes: int) -> list[str]:
    """The worker's command line, to be run in the attempt's folder."""
    if processes == 1:
        return [python, "-m", "tunemark_worker", "plan.json"]
    launcher = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "tunemark_worker", "plan.json"]


def run_worker(
    *,
    python: str,
    processes: int,
    environment: Mapping[str, str],
    code: Path,
    folder: Path,
    timeout_s: float,
    on_record: Callable[[Mapping[str, Any]], None],
    is_waiting: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run one attempt to its end. timeout_s: the longest silence (no new record of any rank) that is borne.
    is_waiting: whether the job stands in a queue, where it has nothing to say.

    KeyboardInterrupt passes through after the workers have ended.
    """
    variables = {**os.environ, **environment, "PYTHONPATH": str(code), "PYTHONUNBUFFERED": "1"}
    # Another interpreter's own library would stand in for the worker's; what was examined was asked without it.
    variables.pop("PYTHONHOME", None)
    kills_before = _kernel_kills()
    with open(folder / "stdout.log", "wb") as out, open(folder / "stderr.log", "wb") as err:
        job = subprocess.Popen(
            command(python, processes),
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    followers = [_Follower(folder / records_name(rank)) for rank in range(processes)]
    timed_out = False
    heard_s = time.monotonic()
    try:
        while True:
            ended = job.poll() is not None
            for follower in followers:
                for record in follower.new():
                    heard_s = time.monotonic()
                    on_record(record)
            if is_waiting():
                heard_s = time.monotonic()
            if ended:
                break
            if all(follower.end is not None for follower in followers) and time.monotonic() - heard_s > _TEARDOWN_S:
                break
            if time.monotonic() - heard_s > timeout_s:
                timed_out = True
                break
            time.sleep(_POLL_S)
    finally:
        is_whole = all(follower.end is not None for follower in followers)
        _stop(job, graceful=not timed_out and not is_whole)
        # Torchrun's ranks are each in a session of their own, which outlives a killed one that started it.
        for follower in followers:
            for record in follower.new():
                on_record(record)
            _kill_rank(follower.pid, folder)
    ends = [follower.end for follower in followers]
    return _judge(job.returncode, ends, timed_out, timeout_s, _kernel_kills() - kills_before, folder)


class _Follower:
    """Whole new lines of a growing file of records."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, 0
        self.pid: int | None = None
        self.end: Mapping[str, Any] | None = None

    def new(self) -> list[Mapping[str, Any]]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        records = [decode(line) for line in whole.decode().splitlines()]
        self.pid = next((r["pid"] for r in records if r["kind"] == "start"), self.pid)
        self.end = next((r for r in records if r["kind"] == "end"), self.end)
        return list(records)


def _judge(
    code: int, ends: list[Mapping[str, Any] | None], timed_out: bool, timeout_s: float, kills: int, folder: Path
) -> Ended:
    if timed_out:
        return Ended(
            status="timeout", reason="silent", evidence=f"no record for {timeout_s:.0f} s; last words: {_last(folder)}"
        )
    for end in ends:
        if end is not None and end["status"] != "ok":
            status: Status = "oom" if end["status"] == "oom" else "error"
            return Ended(status=status, reason=str(end["reason"]), evidence=str(end.get("error") or _last(folder)))
    if all(end is not None for end in ends):
        reason = str(ends[0]["reason"]) if ends[0] else ""
        if reason == "interrupted":
            return Ended(status="killed", reason=reason, evidence="ended at a window's edge after SIGTERM")
        return Ended(status="ok", reason=reason, evidence="every rank wrote its end record")
    if kills > 0:
        return Ended(
            status="oom",
            reason="host memory",
            evidence=f"the kernel killed {kills} processes of this host for memory",
        )
    if code < 0 or code in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
        number = -code if code < 0 else code - 128
        return Ended(status="killed", reason=signal.Signals(number).name, evidence=f"no end record; exit code {code}")
    if "Signal 9 (SIGKILL)" in _tail(folder):  # torchrun's words for a rank that was killed
        return Ended(status="killed", reason="SIGKILL", evidence="no end record; " + _last(folder))
    return Ended(status="error", reason=f"exit code {code}", evidence=_last(folder))


def _stop(job: subprocess.Popen[bytes], *, graceful: bool) -> None:
    """Leave no process of the job's session behind."""
    if job.poll() is None and graceful:
        _signal(job, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(_GRACE_S)
    _signal(job, signal.SIGKILL)
    job.wait()


def _signal(job: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid, number)


def _kill_rank(pid: int | None, folder: Path) -> None:
    """Kill a rank that is still there. A number that meanwhile means another process is left alone, where that can be
    told: a rank works in its attempt's folder."""
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError, FileNotFoundError):
        if not os.path.isdir("/proc/self") or os.path.samefile(f"/proc/{pid}/cwd", folder):
            os.kill(pid, signal.SIGKILL)


def _tail(folder: Path) -> str:
    with open(folder / "stderr.log", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
        return file.read().decode(errors="replace")


def _last(folder: Path) -> str:
    lines = [line.strip() for line in _tail(folder).splitlines() if line.strip()]
    return lines[-1][:500] if lines else "stderr is empty"


def _kernel_kills() -> int:
    """How often the kernel has killed for memory on this host so far; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
