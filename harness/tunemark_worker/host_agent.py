"""One host's part of one attempt: meet the other hosts, start the ranks, follow the parent's orders, leave nothing.

Files in the attempt's folder, which is shared by all hosts:
    job.json            what to start, written by the parent
    meeting.json        where the first host waits for the others
    order               "term", "kill" or "stacks", written by the parent
    agent.<node>.jsonl  this host's events: started, stacks, ended
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Optional, Tuple

from tunemark_worker import linux_proc
from tunemark_worker.contract import PARENT_PID_VARIABLE, code_variables
from tunemark_worker.host_rendezvous import POLL_S, HostRendezvous, find_interface
from tunemark_worker.rank_supervisor import HostShape

# Seconds in which a file that another host has just written must become visible.
_SEEN_S = 10.0
# Seconds that ranks have after SIGTERM to end at a window's edge.
_GRACE_S = 35.0
# Environment variable that marks the processes of this host's part of this attempt.
_MARK = "TUNEMARK_AGENT"
WORKER_PROGRAM = ("-m", "tunemark_worker", "plan.json")
# Exit codes after sysexits.h: the job cannot be read, is refused, or something it needs is unavailable.
EXIT_UNREADABLE, EXIT_REFUSED, EXIT_UNAVAILABLE = 66, 78, 69


class HostAgent:
    """This host's part of one attempt."""

    def __init__(
        self, folder: str, node: int, with_parent: bool = False, beat: Callable[[], None] = lambda: None
    ) -> None:
        """beat: called about twice a second while this host takes part."""
        self._folder, self._node, self._beat = os.path.abspath(folder), node, beat
        self._parent = os.getppid() if with_parent else None
        self._mark = "{}:{}".format(self._folder, node)
        self._terminated: List[int] = []
        self._kills = linux_proc.count_oom_kills()
        self._locks: Dict[int, int] = {}

    def run(self) -> int:
        """Run this host's processes and return their exit code, or one of the codes above if none could be started."""
        path = os.path.join(self._folder, "job.json")
        until_s = time.monotonic() + _SEEN_S
        while not (text := linux_proc.read_text(path)) and time.monotonic() < until_s:
            self._beat()
            time.sleep(POLL_S)
        if not text:
            print("{}: {} is not there: the store must be on a file system shared by all hosts".format(
                socket.gethostname(), path), file=sys.stderr)  # fmt: skip
            return EXIT_UNREADABLE
        job = json.loads(text)
        missing = [name for name in job["export"] if name not in os.environ]
        try:
            self._take_cores(job)
        except OSError as error:
            return self._finish(EXIT_REFUSED, str(error))
        host = {"cores": linux_proc.cpu_affinity() or [], "processor": linux_proc.read_cpu_model()}
        self._say("started", nice=os.nice(0), pid=os.getpid(), **host, missing=missing)
        if missing:
            return self._finish(EXIT_REFUSED, "this host has no environment variable {}".format(", ".join(missing)))
        previous_handlers = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            previous_handlers[number] = signal.signal(number, lambda received, frame: self._terminated.append(received))
        try:
            try:
                endpoint = (
                    HostRendezvous(job, self._folder, self._node, self._wait).meet() if job["nodes"] > 1 else None
                )
            except OSError as error:
                return self._finish(EXIT_UNAVAILABLE, str(error))
            try:
                code = self._run_processes(job, endpoint)
            except OSError as error:
                return self._finish(EXIT_UNAVAILABLE, "cannot start {}: {}".format(job["python"], error))
            return self._finish(code, "")
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    @property
    def was_terminated(self) -> bool:
        """Whether a person or the system has asked this host to end."""
        return bool(self._terminated)

    def _run_processes(self, job: Dict[str, Any], endpoint: Optional[Tuple[str, int, str]]) -> int:
        host, port, _ = endpoint or ("", 0, "")
        shape = HostShape(
            job["nodes"], self._node, job["processes"], job["max_restarts"], host=host, port=port, key=job["key"]
        )
        suffix = ".{}.log".format(self._node) if self._node else ".log"
        variables = dict(os.environ)
        variables.pop("PYTHONHOME", None)
        variables.update(job["environment"])
        variables.update(code_variables(job["code"]))
        variables[_MARK] = self._mark
        variables[PARENT_PID_VARIABLE] = str(os.getpid())
        variables.update(shape.variables())
        if endpoint is not None and "GLOO_SOCKET_IFNAME" not in variables:
            interface = find_interface(endpoint[2])
            if interface:
                # By default gloo uses the address of the host name, which may be a loopback address.
                variables["GLOO_SOCKET_IFNAME"] = interface
        with open(os.path.join(self._folder, "stdout" + suffix), "wb") as out, open(
            os.path.join(self._folder, "stderr" + suffix), "wb"
        ) as err:
            process = subprocess.Popen(
                shape.command(job["python"], WORKER_PROGRAM),
                cwd=self._folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=linux_proc.make_death_signal(signal.SIGTERM),
            )
        terminated_s: Optional[float] = None
        has_dumped_stacks = False
        while process.poll() is None:
            time.sleep(POLL_S)
            self._beat()
            order = self._order()
            if order == "stacks" and not has_dumped_stacks:
                has_dumped_stacks = True
                self._say("stacks", states=self._dump_stacks())
            if order == "kill":
                break
            if order == "term":
                if terminated_s is None:
                    terminated_s = time.monotonic()
                    if self._terminated:
                        self._tell_the_others(signal.Signals(self._terminated[0]).name)
                    linux_proc.send_group_signal(process.pid, signal.SIGTERM)
                elif time.monotonic() - terminated_s > _GRACE_S:
                    break
        self._kill_leftovers()
        linux_proc.send_group_signal(process.pid, signal.SIGKILL)
        code = process.wait()
        self._kill_leftovers()
        return code

    def _take_cores(self, job: Dict[str, Any]) -> None:
        """Bind this host's part to cores that no other agent holds, if the launcher assigns none; OSError if too few
        are free. File locks of this process hold the cores, so that they are released however it ends."""
        if "cores" not in job:
            return
        import fcntl  # absent on Windows

        folder = os.path.join(tempfile.gettempdir(), "tunemark-cores-{}".format(os.getuid()))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        state = os.lstat(folder)
        # Everybody may write where it is, so another user may have made it, or a link to elsewhere.
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            raise OSError("{} is not this user's folder: remove it".format(folder))
        allowed = linux_proc.cpu_affinity() or []
        count = len(allowed) if job["cores"] is None else job["cores"]
        until_s = time.monotonic() + _SEEN_S
        while True:
            for core in allowed:
                if core not in self._locks and len(self._locks) < count:
                    lock = os.open(os.path.join(folder, str(core)), os.O_CREAT | os.O_RDWR, 0o600)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        os.close(lock)
                    else:
                        self._locks[core] = lock
            if len(self._locks) == count:
                os.sched_setaffinity(0, self._locks)
                return
            # A job that has just ended may hold them for another moment.
            self._wait(until_s, "{} of the {} cores that this job needs on this host are free".format(
                len(self._locks), count))  # fmt: skip
            time.sleep(POLL_S)

    def _order(self) -> str:
        if self._parent is not None and os.getppid() != self._parent:
            # The process that started this one is gone, so this one tells the other hosts.
            with contextlib.suppress(OSError), open(os.path.join(self._folder, "order"), "w") as file:
                file.write("kill")
            return "kill"
        order = linux_proc.read_text(os.path.join(self._folder, "order")).strip()
        if order == "kill":
            return order
        return "term" if self._terminated else order

    def _tell_the_others(self, name: str) -> None:
        """Tell the other hosts to end: ranks end together, so those of one host cannot end alone."""
        self._say("terminated", signal=name)
        path = os.path.join(self._folder, "order")
        if linux_proc.read_text(path).strip() not in ("term", "kill"):
            with contextlib.suppress(OSError), open(path, "w") as file:
                file.write("term")

    def _finish(self, code: int, why: str) -> int:
        self._say("ended", code=code, why=why, kills=linux_proc.count_oom_kills() - self._kills)
        if why:
            print(why, file=sys.stderr)
        return code

    def _say(self, event: str, **fields: Any) -> None:
        row = {"event": event, "node": self._node, "host": socket.gethostname()}
        row["utc"] = datetime.now(timezone.utc).isoformat()
        row.update(fields)
        try:
            with open(os.path.join(self._folder, "agent.{}.jsonl".format(self._node)), "a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # a full disk must not keep the ranks alive
            print("cannot write: {}".format(error), file=sys.stderr)

    # -- this host's processes

    def _dump_stacks(self) -> Dict[str, str]:
        states = {}
        for pid, variables in linux_proc.find_processes(_MARK, self._mark):
            command = linux_proc.read_command(pid)
            if ("RANK" in variables or "tunemark_worker " in command) and "rank_supervisor" not in command:
                states[variables.get("RANK", "0")] = linux_proc.read_state(pid)
                # A stopped rank is continued, so that it writes the stacks of the point where it was stopped.
                for number in (signal.SIGUSR1, signal.SIGCONT):
                    linux_proc.send_signal(pid, number)
        return states

    def _kill_leftovers(self) -> None:
        for _ in range(3):  # a process may be starting another one
            found = list(linux_proc.find_processes(_MARK, self._mark))
            for pid, _ in found:
                linux_proc.send_signal(pid, signal.SIGKILL)
            if not found:
                return
            time.sleep(0.1)

    def _wait(self, until_s: float, message: str) -> None:
        self._beat()
        if self._order() in ("term", "kill"):
            raise OSError("ended while the hosts were meeting")
        if time.monotonic() > until_s:
            raise OSError(message)
