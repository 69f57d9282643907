"""One host's part of a job that a launcher has started beyond the parent's machine: `python -m tunemark_worker.agent`.

It runs next to the timed processes and wakes twice a second. It meets the other hosts, starts the ranks through
`torch.distributed.run`, carries out what the parent asks through files in the attempt's folder, and leaves no process
behind, even if the parent, the scheduler or the network is gone. It never imports torch.

Files in the attempt's folder, which is shared by all hosts:
    job.json            what to start, written by the parent
    meeting.json        where the first host waits for the others
    order               "term", "kill" or "stacks", written by the parent
    agent.<node>.jsonl  this host's events: started, stacks, ended

With --join it takes part in one attempt after another. Files in the meeting folder, which is shared by all hosts:
    parent.json         the inviting command: its heartbeat, the attempt it has announced, and that attempt's members
    guest.<name>.json   a host that has joined: its heartbeat
A heartbeat is a counter, not a time, because clocks of hosts differ: a process is alive while its counter changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from tunemark_worker.contract import OWN_STORE_VARIABLE, PARENT_PID_VARIABLE

# Seconds between two reads of the `order` file.
_POLL_S = 0.5
# Seconds that the hosts of one job wait for each other: a scheduler starts them together.
_MEETING_S = 300.0
# Seconds between two heartbeats, and without one until a process is taken for dead. A shared file system may show a
# change late: NFS by up to a minute unless the file is opened anew, which shows it at once.
HEARTBEAT_S = 1.0
HEARTBEAT_TIMEOUT_S = 20.0
# Seconds that a host waits to be invited.
_INVITATION_S = 900.0
# Seconds in which a file that another host has just written must become visible.
_SEEN_S = 10.0
# Seconds that ranks have after SIGTERM to end at a window's edge; torchrun itself waits 30.
_GRACE_S = 35.0
# Environment variable that marks the processes of this host's part of this attempt.
_MARK = "TUNEMARK_AGENT"
# Exit codes after sysexits.h: the job cannot be read, is refused, or something it needs is unavailable.
EXIT_UNREADABLE, EXIT_REFUSED, EXIT_UNAVAILABLE = 66, 78, 69


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="tunemark_worker.agent")
    parser.add_argument("folder", help="an attempt's folder, or with --join the meeting folder")
    parser.add_argument("--node", type=int, default=0, help="which host of the job this is")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    parser.add_argument(
        "--join", action="store_true", help="take part in one attempt after another, announced in the meeting folder"
    )
    given = parser.parse_args(arguments)
    if given.join:
        return join_attempts(given.folder)
    return HostAgent(given.folder, given.node, with_parent=given.with_parent).run()


class Heartbeat:
    """A file in which this process shows that it is alive, with other fields for its readers."""

    def __init__(self, path: str, **fields: Any) -> None:
        self._path, self._count, self._written_s = path, 0, 0.0
        self._fields: Dict[str, Any] = fields

    def beat(self) -> None:
        """Count up and write the file, unless that was done within the last BEAT_S seconds."""
        if time.monotonic() - self._written_s >= HEARTBEAT_S:
            self.say()

    def say(self, **fields: Any) -> None:
        """Change fields and write the file at once."""
        self._fields.update(fields)
        self._count += 1
        self._written_s = time.monotonic()
        with contextlib.suppress(OSError):  # on a full disk the heartbeat stops, which readers notice
            part = self._path + ".part"
            with open(part, "w", encoding="utf-8") as file:
                json.dump(dict(self._fields, beat=self._count), file)
            os.replace(part, self._path)


class HeartbeatReader:
    """Reads heartbeat files. Each read opens the file anew, so that a shared file system refreshes it."""

    def __init__(self) -> None:
        self._beats: Dict[str, Tuple[Any, Optional[float]]] = {}

    def read(self, path: str) -> Dict[str, Any]:
        """Fields of a file; empty if there is none, or if its heartbeat has not changed in the last GONE_S seconds."""
        text = _read(path)
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

    def is_gone(self, path: str) -> bool:
        """Whether the heartbeat changed at least once and then not for GONE_S seconds."""
        since_s = self._beats.get(path, ("", None))[1]
        return since_s is not None and time.monotonic() - since_s > HEARTBEAT_TIMEOUT_S


def join_attempts(place: str) -> int:
    """Take part in every attempt that is announced in the folder `place`, until the inviting command has ended."""
    name = "{}-{}".format(socket.gethostname(), os.getpid())
    sign = Heartbeat(
        os.path.join(place, "guest.{}.json".format(name)), name=name, host=socket.gethostname(), trouble=""
    )
    heard, inviting = HeartbeatReader(), os.path.join(place, "parent.json")
    done: List[str] = []
    session = ""
    joined_s = time.monotonic()

    def beat() -> None:
        sign.beat()
        # Keep reading during an attempt: otherwise a parent that died in the meantime would count as alive afterwards.
        heard.read(inviting)

    print("{} waits for attempts in {}; Ctrl-C leaves".format(name, place), flush=True)
    try:
        while True:
            parent = heard.read(inviting)
            if parent and not parent["closed"]:
                # This may be another command than before, which resumes an interrupted one.
                session = parent["session"]
                sign.beat()
            elif session and (parent or heard.is_gone(inviting)):
                print("the inviting command has ended", flush=True)
                return 0
            elif not session and time.monotonic() - joined_s > _INVITATION_S:
                words = "no command invited this host in {}: it must be on a file system all hosts share".format(place)
                print(words, file=sys.stderr)
                return EXIT_UNAVAILABLE
            folder = parent.get("folder", "")
            if folder and folder not in done and name in parent["members"]:
                done.append(folder)
                agent = HostAgent(folder, parent["members"][name], beat=beat)
                print("node {} of {}".format(parent["members"][name], folder), flush=True)
                code = agent.run()
                print("ended with code {}".format(code), flush=True)
                if agent.was_terminated:
                    return 130
                if code == EXIT_UNREADABLE:
                    sign.say(trouble="{} cannot be read on this host".format(os.path.join(folder, "job.json")))
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return 130
    finally:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(place, "guest.{}.json".format(name)))


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
        self._kills = _kernel_kills()
        self._locks: Dict[int, int] = {}

    def run(self) -> int:
        """Run this host's processes and return their exit code, or one of the codes above if none could be started."""
        path = os.path.join(self._folder, "job.json")
        until_s = time.monotonic() + _SEEN_S
        while not (text := _read(path)) and time.monotonic() < until_s:
            self._beat()
            time.sleep(_POLL_S)
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
        self._say("started", nice=os.nice(0), pid=os.getpid(), cores=_cores(), processor=_processor(), missing=missing)
        if missing:
            return self._finish(EXIT_REFUSED, "this host has no environment variable {}".format(", ".join(missing)))
        previous_handlers = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            previous_handlers[number] = signal.signal(number, lambda received, frame: self._terminated.append(received))
        try:
            try:
                endpoint = self._meet(job) if job["nodes"] > 1 else None
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
        suffix = ".{}.log".format(self._node) if self._node else ".log"
        variables = dict(os.environ)
        variables.pop("PYTHONHOME", None)
        variables.update(job["environment"])
        variables.update({"PYTHONPATH": job["code"], "PYTHONUNBUFFERED": "1", _MARK: self._mark})
        variables[PARENT_PID_VARIABLE] = str(os.getpid())
        if job["max_restarts"]:
            variables[OWN_STORE_VARIABLE] = "1"
        if endpoint is not None and "GLOO_SOCKET_IFNAME" not in variables:
            interface = _interface(endpoint[2])
            if interface:
                # By default gloo uses the address of the host name, which may be a loopback address.
                variables["GLOO_SOCKET_IFNAME"] = interface
        with open(os.path.join(self._folder, "stdout" + suffix), "wb") as out, open(
            os.path.join(self._folder, "stderr" + suffix), "wb"
        ) as err:
            process = subprocess.Popen(
                make_agent_command(job, self._node, endpoint),
                cwd=self._folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_make_death_signal(),
            )
        terminated_s: Optional[float] = None
        has_dumped_stacks = False
        while process.poll() is None:
            time.sleep(_POLL_S)
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
                    _signal_group(process.pid, signal.SIGTERM)
                elif time.monotonic() - terminated_s > _GRACE_S:
                    break
        self._kill_leftovers()
        _signal_group(process.pid, signal.SIGKILL)
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
        os.makedirs(folder, exist_ok=True)
        allowed = _cores()
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
            time.sleep(_POLL_S)

    def _order(self) -> str:
        if self._parent is not None and os.getppid() != self._parent:
            # The process that started this one is gone, so this one tells the other hosts.
            with contextlib.suppress(OSError), open(os.path.join(self._folder, "order"), "w") as file:
                file.write("kill")
            return "kill"
        order = _read(os.path.join(self._folder, "order")).strip()
        if order == "kill":
            return order
        return "term" if self._terminated else order

    def _finish(self, code: int, why: str) -> int:
        self._say("ended", code=code, why=why, kills=_kernel_kills() - self._kills)
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

    def _marked_processes(self) -> Iterator[Tuple[int, Dict[str, str]]]:
        """(pid, environment) of every process started for this attempt on this host, whatever its parent is now."""
        for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
            if name.isdigit() and int(name) != os.getpid():
                content = _read("/proc/{}/environ".format(name))
                variables = dict(part.partition("=")[::2] for part in content.split("\0") if part)
                if variables.get(_MARK) == self._mark:
                    yield int(name), variables

    def _dump_stacks(self) -> Dict[str, str]:
        states = {}
        for pid, variables in self._marked_processes():
            if "RANK" in variables or "tunemark_worker\0" in _read("/proc/{}/cmdline".format(pid)):
                if "torch.distributed.run" in _read("/proc/{}/cmdline".format(pid)):
                    continue
                states[variables.get("RANK", "0")] = _state(pid)
                # A stopped rank is continued, so that it writes the stacks of the point where it was stopped.
                for number in (signal.SIGUSR1, signal.SIGCONT):
                    _signal(pid, number)
        return states

    def _kill_leftovers(self) -> None:
        for _ in range(3):  # a process may be starting another one
            found = list(self._marked_processes())
            for pid, _ in found:
                _signal(pid, signal.SIGKILL)
            if not found:
                return
            time.sleep(0.1)

    # -- the other hosts

    def _meet(self, job: Dict[str, Any]) -> Tuple[str, int, str]:
        """(rendezvous address, rendezvous port, this host's own address); OSError if not all hosts came in time."""
        path = os.path.join(self._folder, "meeting.json")
        return self._wait_for_hosts(job, path) if self._node == 0 else self._join_first_host(job, path)

    def _wait_for_hosts(self, job: Dict[str, Any], path: str) -> Tuple[str, int, str]:
        server = socket.socket()
        server.bind(("", 0))
        server.listen(job["nodes"])
        port = _free_port()
        meeting = {"key": job["key"], "addresses": _addresses(job.get("host")), "port": server.getsockname()[1]}
        with open(path + ".part", "w") as file:
            json.dump(meeting, file)
        os.replace(path + ".part", path)
        meeting_s = job.get("meeting_s", _MEETING_S)
        until_s = time.monotonic() + meeting_s
        came: Dict[int, str] = {}
        address = ""
        while len(came) < job["nodes"] - 1:
            self._wait(until_s, "{} of {} hosts joined in {:.0f} s".format(len(came) + 1, job["nodes"], meeting_s))
            server.settimeout(_POLL_S)
            try:
                guest, _ = server.accept()
            except socket.timeout:
                continue
            guest.settimeout(10)
            try:
                greeting = json.loads(guest.makefile().readline())
                if greeting["key"] != job["key"]:
                    raise ValueError("it belongs to another job")
                # The guest reached this host by this address, so others can too.
                address = job.get("host") or guest.getsockname()[0]
                guest.sendall((json.dumps({"host": address, "port": port}) + "\n").encode())
                came[int(greeting["node"])] = guest.getpeername()[0]
            except (OSError, ValueError, KeyError) as error:
                print("ignored a connection: {}".format(error), file=sys.stderr)
            finally:
                guest.close()
        server.close()
        return address, port, address

    def _join_first_host(self, job: Dict[str, Any], path: str) -> Tuple[str, int, str]:
        meeting_s = job.get("meeting_s", _MEETING_S)
        until_s = time.monotonic() + meeting_s
        tried: Dict[str, str] = {}
        while True:
            self._wait(until_s, "first host not reached in {:.0f} s: {}".format(meeting_s, tried or "no address"))
            text = _read(path)
            meeting = json.loads(text) if text else {}
            for address in meeting.get("addresses", ()) if meeting.get("key") == job["key"] else ():
                try:
                    with socket.create_connection((address, meeting["port"]), timeout=5) as host:
                        host.sendall((json.dumps({"key": job["key"], "node": self._node}) + "\n").encode())
                        answer = json.loads(host.makefile().readline())
                        return answer["host"], answer["port"], host.getsockname()[0]
                except (OSError, ValueError) as error:
                    tried[address] = str(error)
            time.sleep(_POLL_S)

    def _wait(self, until_s: float, message: str) -> None:
        self._beat()
        if self._order() in ("term", "kill"):
            raise OSError("ended while the hosts were meeting")
        if time.monotonic() > until_s:
            raise OSError(message)


def make_agent_command(job: Dict[str, Any], node: int, endpoint: Optional[Tuple[str, int, str]]) -> List[str]:
    """The command line of one host's processes. endpoint: as `_meet` returns it; None if there is one
    host."""
    worker = ["-m", "tunemark_worker", "plan.json"]
    if endpoint is None and job["processes"] == 1 and not job["max_restarts"]:
        return [job["python"], *worker]
    elastic = ["-m", "torch.distributed.run", "--nproc-per-node", str(job["processes"] // job["nodes"])]
    if job["max_restarts"]:
        elastic += ["--max-restarts", str(job["max_restarts"])]
    if endpoint is None:
        elastic += ["--standalone"]
    else:
        host, port, own = endpoint
        elastic += ["--nnodes", str(job["nodes"]), "--rdzv-backend", "c10d", "--rdzv-id", job["key"]]
        elastic += ["--rdzv-endpoint", "{}:{}".format(host, port), "--local-addr", own]
        elastic += ["--rdzv-conf", "is_host={}".format("true" if node == 0 else "false")]
    return [job["python"], *elastic, *worker]


def _make_death_signal() -> Optional[Callable[[], None]]:
    """A `preexec_fn` that has the child receive SIGTERM when this process dies; None if the system cannot do that."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None
    # PR_SET_PDEATHSIG of prctl(2).
    return lambda: prctl(1, signal.SIGTERM)


def _addresses(host: Optional[str]) -> List[str]:
    """Addresses at which other hosts may reach this one, the likeliest first."""
    if host:
        return [host]
    found = [socket.gethostname()]
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        # A UDP connect sends nothing; it only selects the local address.
        probe.connect(("10.255.255.255", 9))
        found.append(probe.getsockname()[0])
    except OSError:
        pass
    finally:
        probe.close()
    return [*dict.fromkeys(found), "127.0.0.1"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _interface(address: str) -> Optional[str]:
    """The name of the network interface that has an IPv4 address."""
    try:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                try:
                    # SIOCGIFADDR of netdevice(7): the address begins at byte 20.
                    answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
                except OSError:
                    continue
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    except (ImportError, OSError):
        pass
    return None


def _cores() -> List[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _processor() -> str:
    lines = (line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip()


def _kernel_kills() -> int:
    lines = (line for line in _read("/proc/vmstat").splitlines() if line.startswith("oom_kill "))
    return int(next(lines, "oom_kill 0").split()[1])


def _state(pid: int) -> str:
    """The state letter of proc(5), such as R or T; empty if the process is gone."""
    return _read("/proc/{}/stat".format(pid)).rpartition(")")[2].strip()[:1]


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
