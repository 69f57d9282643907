"""The launcher `nodes`: this host and others, on each of which a person types one command, the same for all of them.

The hosts meet in a folder of the store, `.hosts`, which must be on a file system that all of them share. Each attempt
is then a gang: every host starts torch's own `torch.distributed.run`, whose rendezvous is on this host.
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
from tunemark.plugin import Job, Launch, StartedJob
from tunemark_launchers.agents import GRACE_S, POLL_S, Agents, check_nodes, options_of, spread, write_job
from tunemark_worker.agent import BEAT_S, GONE_S, UNAVAILABLE, Heard, Sign

_WAIT_S = 300
# Once a host has not come in that time, a later attempt waits only as long as one that is there needs to say so.
_AGAIN_S = 10.0
# Seconds that hosts which all are there have to find each other on the network.
_MEETING_S = 60.0

OPTIONS = {
    "nodes": "hosts, this one among them (2)",
    "host": "name or address by which the others reach this host (found out)",
    "wait": f"seconds that the others have to join ({_WAIT_S})",
}


class Nodes:
    """Invites hosts to the store's folder `.hosts`, and starts one job after another on those that came."""

    at_once = 1

    def __init__(self, options: Mapping[str, str], export: Sequence[str], say: Callable[[str], None]) -> None:
        numbers = options_of(options, ("nodes", "wait"), "nodes")
        self._options, self._nodes = options, numbers.get("nodes", 2)
        self._patience_s = float(numbers.get("wait", _WAIT_S))
        # Hosts of the largest job, which is what a person is asked to bring together.
        self._most = 1
        self._host, self._export, self.say = options.get("host"), tuple(export), say
        self._place: _Place | None = None

    def check(self, launch: Launch, store: Path) -> None:
        nodes = spread(launch.nodes, self._options, self._nodes, "nodes")
        check_nodes(launch.processes, nodes, "nodes")
        self._most = max(self._most, nodes)
        if not os.path.isdir("/proc/self"):
            raise BadExperiment(
                what="the launcher nodes needs Linux",
                why="/proc is where each host finds what it has to end",
                next="--launcher local",
            )
        if self._place is None:
            self._place = _Place(store / ".hosts")

    def start(self, job: Job) -> StartedJob:
        assert self._place is not None, "checked before"
        nodes = spread(job.nodes, self._options, self._nodes, "nodes")
        if nodes > 1 and not self._place.is_told:
            self._place.is_told = True
            others = "the other host" if self._most == 2 else f"each of the other {self._most - 1} hosts"
            words = ["env", f"PYTHONPATH={job.code}", job.python, "-m", "tunemark_worker.agent", "--join"]
            self.say(f"type on {others}:\n  {shlex.join([*words, str(self._place.folder)])}")
        more = {"meeting_s": _MEETING_S, **({"host": self._host} if self._host else {})}
        write_job(job, nodes, self._export, **more)
        return NodesJob(job, nodes, self, self._place, self._patience_s)

    def adopt(self, job: Job, facts: Mapping[str, Any]) -> StartedJob | None:
        """None: this host's part of the job has ended with the command that started it."""
        return None

    def close(self) -> None:
        if self._place is not None:
            self._place.close()

    def lost_patience(self) -> None:
        self._patience_s = min(self._patience_s, _AGAIN_S)


class _Place:
    """Where hosts meet. members: names of the hosts that take part, in the order of their numbers from 1 on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members: list[str] = []
        self.hosts: dict[str, str] = {}
        self.is_told = False
        folder.mkdir(parents=True, exist_ok=True)
        self._heard = Heard()
        if self._is_taken():
            raise BadExperiment(
                what=f"another command meets its hosts in {folder}",
                why="its sign of life there is fresh",
                next="wait for it, or use another --store",
            )
        for path in folder.glob("*"):
            # What a killed host or command has left; a host that lives writes its sign again within a second.
            with contextlib.suppress(OSError):
                path.unlink()
        self._lock = threading.Lock()
        self._sign = Sign(
            str(folder / "parent.json"), session=secrets.token_hex(8), closed=False, folder="", members={}
        )
        self._sign.say()
        self._closing = threading.Event()
        # A thread, since the command does other things between two attempts, and hosts must not take it for gone.
        self._beating = threading.Thread(target=self._beat, name="tunemark-hosts", daemon=True)
        self._beating.start()

    def living(self) -> list[str]:
        """The members that give signs of life, joined by others that came as long as some are wanted."""
        present = {}
        for path in sorted(self.folder.glob("guest.*.json")):
            said = self._heard.read(str(path))
            if said:
                present[str(said["name"])] = said
                self.hosts[str(said["name"])] = str(said["host"])
        return list(present)

    def gather(self, others: int) -> bool:
        """Take in who came; True where they are so many."""
        present = self.living()
        stay = [name for name in self.members if name in present]
        self.members = [*stay, *(name for name in present if name not in stay)][:others]
        return len(self.members) == others

    def troubles(self) -> list[str]:
        said = (self._heard.read(str(self.folder / f"guest.{name}.json")) for name in self.members)
        return [f"{each['host']}: {each['trouble']}" for each in said if each and each["trouble"]]

    def announce(self, folder: Path) -> None:
        with self._lock:
            self._sign.say(folder=str(folder), members={name: i + 1 for i, name in enumerate(self.members)})

    def close(self) -> None:
        self._closing.set()
        self._beating.join()
        self._sign.say(closed=True)

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S / 2):
            with self._lock:
                self._sign.beat()

    def _is_taken(self) -> bool:
        path = str(self.folder / "parent.json")
        until_s = time.monotonic() + 3 * BEAT_S
        while os.path.exists(path) and time.monotonic() < until_s:
            said = self._heard.read(path)
            if said and not said["closed"]:
                return True
            if '"closed": true' in _text(path):
                return False
            time.sleep(POLL_S)
        return False


class NodesJob:
    """One attempt: first the hosts are waited for, then each starts its part."""

    def __init__(self, job: Job, nodes: int, launcher: Nodes, place: _Place, patience_s: float) -> None:
        self._job, self._nodes, self._launcher, self._place = job, nodes, launcher, place
        self._agents = Agents(job.folder, nodes)
        self._began_s = time.monotonic()
        self._patience_s = patience_s
        self._waited_s: float | None = None
        self._looked_s = 0.0
        self._told = -1
        self._failure = ""
        self._reason = ""
        self._process: subprocess.Popen[bytes] | None = None

    def exit_code(self) -> int | None:
        if self._failure:
            return UNAVAILABLE
        now_s = time.monotonic()
        if now_s - self._looked_s >= BEAT_S / 2:
            self._looked_s = now_s
            if self._process is None:
                self._gather(now_s)
            else:
                self._look_after()
        if self._failure:
            return UNAVAILABLE
        return None if self._process is None else self._agents.code()

    def is_waiting(self) -> bool:
        return self._process is None and not self._failure

    def interrupt(self) -> None:
        self._agents.order("term")

    def stacks(self, pids: Mapping[int, int]) -> str:
        return self._agents.stacks()

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if self._process is None:
            self._failure = self._failure or "ended before it began"
            return
        if graceful and not self._failure:
            self.interrupt()
            self._wait_for_living(GRACE_S)
        if not self._agents.all_ended():
            self._agents.order("kill")
            self._wait_for_living(10.0)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            # Its ranks get SIGTERM from the kernel when it is gone.
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
        if self._place.gather(self._nodes - 1):
            self._waited_s = now_s - self._began_s
            self._begin()
            return
        here = len(self._place.members) + 1
        if here != self._told:
            self._told = here
            self._launcher.say(f"{here} of {self._nodes} hosts are there")
        if now_s - self._began_s > self._patience_s:
            came = ", ".join([socket.gethostname(), *(self._place.hosts[name] for name in self._place.members)])
            self._failure = f"{here} of {self._nodes} hosts came in {self._patience_s:.0f} s: {came}"
            self._reason = "host missing"
            self._launcher.lost_patience()

    def _begin(self) -> None:
        self._place.announce(self._job.folder)
        words = [sys.executable, "-m", "tunemark_worker.agent", str(self._job.folder), "--with-parent"]
        with open(self._job.folder / "agent.0.log", "wb") as log:
            self._process = subprocess.Popen(
                words,
                env={**os.environ, "PYTHONPATH": str(self._job.code)},
                cwd=self._job.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is the command's alone, which passes it on.
                start_new_session=True,
            )

    def _look_after(self) -> None:
        """Find out who is gone, or cannot take part."""
        self._agents.end_where_one_refused()
        ended, living = self._agents.said("ended"), self._place.living()
        gone = [n for i, n in enumerate(self._place.members, 1) if n not in living and i not in ended]
        if gone:
            hosts = ", ".join(f"{self._place.hosts[name]} ({name})" for name in gone)
            self._failure = f"no sign of life from {hosts} for {GONE_S:.0f} s, or its command was ended"
            self._reason = "host vanished"
        elif troubles := self._place.troubles():
            self._failure, self._reason = "; ".join(troubles), "no shared file system"
        elif (
            self._process is not None
            and self._process.poll() is not None
            # Asked once more: it may have said so, and ended, since.
            and 0 not in self._agents.said("ended")
        ):
            self._failure = f"this host's agent ended with code {self._process.returncode}; its log is agent.0.log"

    def _wait_for_living(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            ended, living = self._agents.said("ended"), self._place.living()
            waited = [i for i, name in enumerate(self._place.members, 1) if name in living]
            assert self._process is not None, "it has begun"
            if self._process.poll() is None:
                waited.append(0)
            if all(node in ended for node in waited):
                return
            time.sleep(POLL_S)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
