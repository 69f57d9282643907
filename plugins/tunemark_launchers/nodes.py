"""The launcher `nodes`: this host and others, on each of which the user types the same command.

The hosts meet in a folder of the store, `.hosts`, which must be on a file system that all of them share. For each
attempt every host then starts its ranks, which meet on this host.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec, LaunchConfig, StartedJob
from tunemark_launchers.agents import (
    GRACE_S,
    POLL_S,
    HostAgents,
    check_nodes,
    count_nodes,
    parse_numeric_options,
    write_job,
)
from tunemark_worker.contract import code_variables
from tunemark_worker.heartbeat import HEARTBEAT_S, HEARTBEAT_TIMEOUT_S, Heartbeat, HeartbeatReader
from tunemark_worker.host_agent import EXIT_UNAVAILABLE
from tunemark_worker.linux_proc import read_text

_WAIT_S = 300
# After a host has once failed to join in that time, later attempts wait only as long as a running one needs to report.
_LATER_WAIT_S = 10.0
# Seconds that hosts have to find each other on the network once all have joined.
_MEETING_S = 60.0

OPTIONS = {
    "nodes": "hosts, including this one (2)",
    "host": "name or address by which the others reach this host (detected)",
    "wait": f"seconds that the others have to join ({_WAIT_S})",
}


class NodesLauncher:
    """Invites hosts to the store's folder `.hosts`, and starts one job after another on those that join."""

    max_jobs = 1

    def __init__(self, options: Mapping[str, str], export: Sequence[str], say: Callable[[str], None]) -> None:
        numbers = parse_numeric_options(options, ("nodes", "wait"), "nodes")
        self._options, self._nodes = options, numbers.get("nodes", 2)
        self._patience_s = float(numbers.get("wait", _WAIT_S))
        # Hosts of the largest job, which is how many the user is asked to start.
        self._max_hosts = 1
        self._host, self._export, self.say = options.get("host"), tuple(export), say
        self._meeting: _MeetingFolder | None = None

    def check(self, launch: LaunchConfig, store: Path) -> None:
        nodes = count_nodes(launch.nodes, self._options, self._nodes, "nodes")
        check_nodes(launch.processes, nodes, "nodes")
        self._max_hosts = max(self._max_hosts, nodes)
        if not os.path.isdir("/proc/self"):
            raise BadExperiment(
                what="the launcher nodes needs Linux",
                why="each host finds the processes to end in /proc",
                next="--launcher local",
            )
        if self._meeting is None:
            self._meeting = _MeetingFolder(store / ".hosts")

    def start(self, job: JobSpec) -> StartedJob:
        assert self._meeting is not None, "check() comes first"
        nodes = count_nodes(job.nodes, self._options, self._nodes, "nodes")
        if nodes > 1 and not self._meeting.is_announced:
            self._meeting.is_announced = True
            others = "the other host" if self._max_hosts == 2 else f"each of the other {self._max_hosts - 1} hosts"
            variables = [f"{name}={value}" for name, value in code_variables(str(job.code)).items()]
            words = ["env", *variables, job.python, "-m", "tunemark_worker.agent", "--join"]
            self.say(f"type on {others}:\n  {shlex.join([*words, str(self._meeting.folder)])}")
        more = {"meeting_s": _MEETING_S, **({"host": self._host} if self._host else {})}
        write_job(job, nodes, self._export, **more)
        return NodesJob(job, nodes, self, self._meeting, self._patience_s)

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """None: this host's part of the job ended with the command that started it."""
        return None

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.close()

    def shorten_wait(self) -> None:
        self._patience_s = min(self._patience_s, _LATER_WAIT_S)


class _MeetingFolder:
    """The folder where hosts meet. members: names of the participating hosts, in the order of their numbers from 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: list[str] = []
        self.hosts: dict[str, str] = {}
        self.is_announced = False
        folder.mkdir(parents=True, exist_ok=True)
        self._reader = HeartbeatReader()
        if self._is_taken():
            raise BadExperiment(
                what=f"another command uses {folder}",
                why="its sign of life there is recent",
                next="wait for it, or use another --store",
            )
        for path in folder.glob("*"):
            # Files that a killed host or command left; a live host writes its sign again within a second.
            with contextlib.suppress(OSError):
                path.unlink()
        self._lock = threading.Lock()
        self._heartbeat = Heartbeat(
            str(folder / "parent.json"), session=secrets.token_hex(8), closed=False, folder="", members={}
        )
        self._heartbeat.update()
        self._closing = threading.Event()
        # In a thread, since hosts must not take the command for dead while it is busy between two attempts.
        self._thread = threading.Thread(target=self._beat, name="tunemark-hosts", daemon=True)
        self._thread.start()

    def find_live(self) -> list[str]:
        """The names of all hosts that give signs of life, members or not."""
        present = {}
        for path in sorted(self.folder.glob("guest.*.json")):
            said = self._reader.read(str(path))
            if said:
                present[str(said["name"])] = said
                self.hosts[str(said["name"])] = str(said["host"])
        return list(present)

    def gather(self, others: int) -> bool:
        """Fill up the members from the live hosts; True where there are `others` of them."""
        present = self.find_live()
        stay = [name for name in self.members if name in present]
        self.members = [*stay, *(name for name in present if name not in stay)][:others]
        return len(self.members) == others

    def troubles(self) -> list[str]:
        said = (self._reader.read(str(self.folder / f"guest.{name}.json")) for name in self.members)
        return [f"{each['host']}: {each['trouble']}" for each in said if each and each["trouble"]]

    def announce(self, folder: Path) -> None:
        with self._lock:
            self._heartbeat.update(folder=str(folder), members={name: i + 1 for i, name in enumerate(self.members)})

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._heartbeat.update(closed=True)

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_S / 2):
            with self._lock:
                self._heartbeat.beat_if_due()

    def _is_taken(self) -> bool:
        path = str(self.folder / "parent.json")
        until_s = time.monotonic() + 3 * HEARTBEAT_S
        while os.path.exists(path) and time.monotonic() < until_s:
            said = self._reader.read(path)
            if said and not said["closed"]:
                return True
            if '"closed": true' in read_text(path):
                return False
            time.sleep(POLL_S)
        return False


class NodesJob:
    """One attempt: wait for the hosts, then each starts its part."""

    def __init__(
        self, job: JobSpec, nodes: int, launcher: NodesLauncher, meeting: _MeetingFolder, patience_s: float
    ) -> None:
        self._job, self._nodes, self._launcher, self._meeting = job, nodes, launcher, meeting
        self._agents = HostAgents(job.folder, nodes)
        self._began_s = time.monotonic()
        self._patience_s = patience_s
        self._waited_s: float | None = None
        self._checked_s = 0.0
        self._reported = -1
        self._failure = ""
        self._reason = ""
        self._process: subprocess.Popen[bytes] | None = None

    def exit_code(self) -> int | None:
        if self._failure:
            return EXIT_UNAVAILABLE
        now_s = time.monotonic()
        if now_s - self._checked_s >= HEARTBEAT_S / 2:
            self._checked_s = now_s
            if self._process is None:
                self._gather(now_s)
            else:
                self._check_hosts()
        if self._failure:
            return EXIT_UNAVAILABLE
        return None if self._process is None else self._agents.exit_code()

    def is_waiting(self) -> bool:
        return self._process is None and not self._failure

    def interrupt(self) -> None:
        self._agents.write_order("term")

    def stacks(self, pids: Mapping[int, int]) -> str:
        return self._agents.stacks()

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if self._process is None:
            self._failure = self._failure or "ended before it began"
            return
        if graceful and not self._failure:
            self.interrupt()
            self._wait_for_live(GRACE_S)
        if not self._agents.all_ended():
            self._agents.write_order("kill")
            self._wait_for_live(10.0)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            # Its ranks get SIGTERM from the kernel when it dies.
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def facts(self) -> Mapping[str, Any]:
        found: dict[str, Any] = dict(self._agents.facts())
        if self._waited_s is not None:
            found["queue_s"] = self._waited_s
        if self._failure:
            found.update(failure=self._failure, failure_reason=self._reason or "launcher")
            found["failure_status"] = "killed" if self._reason == "host vanished" else "error"
        return found

    def _gather(self, now_s: float) -> None:
        if self._meeting.gather(self._nodes - 1):
            self._waited_s = now_s - self._began_s
            self._begin()
            return
        here = len(self._meeting.members) + 1
        if here != self._reported:
            self._reported = here
            self._launcher.say(f"{here} of {self._nodes} hosts have joined")
        if now_s - self._began_s > self._patience_s:
            joined = ", ".join([socket.gethostname(), *(self._meeting.hosts[name] for name in self._meeting.members)])
            self._failure = f"{here} of {self._nodes} hosts joined in {self._patience_s:.0f} s: {joined}"
            self._reason = "host missing"
            self._launcher.shorten_wait()

    def _begin(self) -> None:
        self._meeting.announce(self._job.folder)
        words = [sys.executable, "-m", "tunemark_worker.agent", str(self._job.folder), "--with-parent"]
        with open(self._job.folder / "agent.0.log", "wb") as log:
            self._process = subprocess.Popen(
                words,
                env={**os.environ, **code_variables(str(self._job.code))},
                cwd=self._job.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Only the command receives Ctrl-C; it passes it on.
                start_new_session=True,
            )

    def _check_hosts(self) -> None:
        """Detect hosts that are lost or cannot take part."""
        self._agents.kill_if_one_refused()
        ended, live = self._agents.last_events("ended"), self._meeting.find_live()
        gone = [n for i, n in enumerate(self._meeting.members, 1) if n not in live and i not in ended]
        if gone:
            hosts = ", ".join(f"{self._meeting.hosts[name]} ({name})" for name in gone)
            self._failure = f"no sign of life from {hosts} for {HEARTBEAT_TIMEOUT_S:.0f} s, or its command was ended"
            self._reason = "host vanished"
        elif troubles := self._meeting.troubles():
            self._failure, self._reason = "; ".join(troubles), "no shared file system"
        elif (
            self._process is not None
            and self._process.poll() is not None
            # Read again: it may have reported its end since.
            and 0 not in self._agents.last_events("ended")
        ):
            self._failure = f"this host's agent ended with code {self._process.returncode}; its log is agent.0.log"

    def _wait_for_live(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            ended, live = self._agents.last_events("ended"), self._meeting.find_live()
            waited = [i for i, name in enumerate(self._meeting.members, 1) if name in live]
            assert self._process is not None, "it was started"
            if self._process.poll() is None:
                waited.append(0)
            if all(node in ended for node in waited):
                return
            time.sleep(POLL_S)
