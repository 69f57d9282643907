"""Start one host's ranks, and end them together: `python -m tunemark_worker.rank_supervisor INTERPRETER ARGUMENTS`.

It does what a job needs of torch's elastic agent without its rendezvous, which listens on every address and unpickles
what it is sent. It sleeps until a rank ends or a signal comes, and never imports torch.

Files in the working directory, the attempt's folder:
    exits.<node>.jsonl   each rank that did not end with 0, in the order in which they ended
    failed.<life>        of a job on several hosts: a rank has failed, so all hosts end theirs
    life.<life>.json     of a job on several hosts: where the ranks that are started again meet, written by host 0
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from tunemark_worker.atomic_write import write_json
from tunemark_worker.contract import LIFE_VARIABLE, RANK_STORE_VARIABLE
from tunemark_worker.host_rendezvous import find_interface
from tunemark_worker.linux_proc import make_death_signal, read_text

# Environment variable with the HostShape that this host's supervisor reads; it holds a key, which a command line shows.
SHAPE_VARIABLE = "TUNEMARK_RANKS"
# Seconds that ranks have to write their last records after another one failed, and after the parent has died.
_FAILED_GRACE_S, _ORPHANED_GRACE_S = 10.0, 20.0
# Seconds between two looks at the parent, and at what other hosts have written.
_WAKE_S, _HOSTS_S = 1.0, 0.5
# Seconds that other hosts wait for host 0 to start the ranks again; its own have _FAILED_GRACE_S to end.
_NEXT_LIFE_S = 120.0
# What torchrun sets for every rank, under the names of torch 2.2 and of those before.
_NCCL_VARIABLES = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")


class HostShape(NamedTuple):
    """One host's part of a job. processes: of the whole job, spread evenly over `nodes` hosts, of which this is number
    `node`. max_restarts: how often ranks that failed are started again. host, port, key: where the ranks of several
    hosts meet, and the job's secret; empty for one host."""

    nodes: int
    node: int
    processes: int
    max_restarts: int
    host: str = ""
    port: int = 0
    key: str = ""

    @property
    def is_supervised(self) -> bool:
        """Whether the job needs more than its one process."""
        return self.processes > 1 or self.max_restarts > 0

    def command(self, python: str, program: Sequence[str]) -> List[str]:
        """The command line of this host's processes. program: interpreter arguments of each rank."""
        return [python, *(["-m", "tunemark_worker.rank_supervisor"] if self.is_supervised else []), *program]

    def variables(self) -> Dict[str, str]:
        """Environment variables of that command."""
        return {SHAPE_VARIABLE: json.dumps(self._asdict())} if self.is_supervised else {}


class RankSupervisor:
    """This host's ranks. Signals and the ends of ranks wake it through a pipe."""

    def __init__(self, shape: HostShape, program: Sequence[str]) -> None:
        self._shape, self._program = shape, list(program)
        self._parent = os.getppid()
        self._running: Dict[int, Tuple[int, Any]] = {}
        self._is_asked = False
        self._wake, writer = os.pipe()
        for descriptor in (self._wake, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda received, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def run(self) -> int:
        """Run the ranks, again after a failure as often as allowed; the exit code of the first that failed, else 0."""
        life, host, port = 0, self._shape.host, self._shape.port
        while True:
            code = self._run_life(life, host, port)
            if code == 0 or self._is_asked or life == self._shape.max_restarts:
                return code
            life += 1
            if self._shape.nodes > 1:
                try:
                    port = self._meet_again(life)
                except OSError as error:
                    print("the ranks cannot be started again: {}".format(error), file=sys.stderr)
                    return code

    def _run_life(self, life: int, host: str, port: int) -> int:
        with contextlib.ExitStack() as resources:
            self._start_ranks(life, host, port, resources)
            code = 0
            kill_s: Optional[float] = None
            is_ending = False
            while self._running:
                self._sleep()
                for rank, pid, ended in self._reap():
                    self._note(life, rank, pid, ended, is_ending)
                    code = code or (ended if ended >= 0 else 1)
                    if ended and not is_ending:
                        is_ending, kill_s = True, time.monotonic() + _FAILED_GRACE_S
                        self._tell_hosts(life)
                        self._signal(signal.SIGTERM)
                if not is_ending and self._has_failed_elsewhere(life):
                    code = 1
                    is_ending, kill_s = True, time.monotonic() + _FAILED_GRACE_S
                    self._signal(signal.SIGTERM)
                if os.getppid() != self._parent and not (is_ending and kill_s):
                    self._is_asked = is_ending = True
                    kill_s = time.monotonic() + _ORPHANED_GRACE_S
                    self._signal(signal.SIGTERM)
                if self._is_asked and not is_ending:
                    # Ranks end at a window's edge; who asked decides how long that may take.
                    is_ending = True
                    self._signal(signal.SIGTERM)
                if kill_s is not None and time.monotonic() > kill_s:
                    self._signal(signal.SIGKILL)
            return code

    def _start_ranks(self, life: int, host: str, port: int, resources: contextlib.ExitStack) -> None:
        shape = self._shape
        here = shape.processes // shape.nodes
        inherited: Tuple[int, ...] = ()
        shared = dict(os.environ)
        del shared[SHAPE_VARIABLE]
        if shape.nodes > 1:
            place: Dict[str, Any] = {"host": host, "port": port, "key": "{}.{}".format(shape.key, life)}
            shared.update(MASTER_ADDR=host, MASTER_PORT=str(port))
        else:
            path, inherited = _make_store_file(resources)
            place = {"path": path}
            # What one host's ranks tell each other stays on it.
            loopback = find_interface("127.0.0.1") or "lo"
            shared.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
        shared.update({RANK_STORE_VARIABLE: json.dumps(place), LIFE_VARIABLE: str(life)})
        shared.update(WORLD_SIZE=str(shape.processes), LOCAL_WORLD_SIZE=str(here), GROUP_RANK=str(shape.node))
        for name in _NCCL_VARIABLES:
            shared.setdefault(name, "1")
        if here > 1:
            # As torchrun does it: by default every rank would start a thread for each core.
            shared.setdefault("OMP_NUM_THREADS", "1")
        for local in range(here):
            rank = shape.node * here + local
            process = subprocess.Popen(
                [sys.executable, *self._program],
                env=dict(shared, RANK=str(rank), LOCAL_RANK=str(local)),
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                preexec_fn=make_death_signal(signal.SIGKILL),
            )
            self._running[process.pid] = (rank, process)

    def _ask(self, number: int, frame: Any) -> None:
        self._is_asked = True

    def _sleep(self) -> None:
        ready, _, _ = select.select([self._wake], [], [], _HOSTS_S if self._shape.nodes > 1 else _WAKE_S)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)

    def _reap(self) -> List[Tuple[int, int, int]]:
        """(rank, pid, exit code or negative signal) of the ranks that have ended since, those of signals first."""
        over = [(rank, pid, process.poll()) for pid, (rank, process) in self._running.items()]
        found = [(rank, pid, code) for rank, pid, code in over if code is not None]
        for _, pid, _ in found:
            del self._running[pid]
        return sorted(found, key=lambda each: each[2] >= 0)

    def _signal(self, number: int) -> None:
        for _, process in self._running.values():
            process.send_signal(number)

    def _note(self, life: int, rank: int, pid: int, code: int, asked: bool) -> None:
        if code == 0:
            return
        row = {"life": life, "rank": rank, "pid": pid, "code": code, "asked": asked}
        with contextlib.suppress(OSError), open("exits.{}.jsonl".format(self._shape.node), "a") as file:
            file.write(json.dumps(row) + "\n")

    # -- the other hosts

    def _tell_hosts(self, life: int) -> None:
        if self._shape.nodes > 1:
            with contextlib.suppress(OSError), open("failed.{}".format(life), "a"):
                pass

    def _has_failed_elsewhere(self, life: int) -> bool:
        return self._shape.nodes > 1 and os.path.exists("failed.{}".format(life))

    def _meet_again(self, life: int) -> int:
        """The port at which all hosts' ranks meet in this life; OSError if host 0 says none."""
        path = "life.{}.json".format(life)
        if self._shape.node == 0:
            with socket.socket() as probe:
                probe.bind(("", 0))
                port = int(probe.getsockname()[1])
            write_json(path, {"port": port})
            return port
        until_s = time.monotonic() + _NEXT_LIFE_S
        while time.monotonic() < until_s and not self._is_asked and os.getppid() == self._parent:
            text = read_text(path)
            if text:
                return int(json.loads(text)["port"])
            self._sleep()
        raise OSError("host 0 has not started its ranks again")


def _make_store_file(resources: contextlib.ExitStack) -> Tuple[str, Tuple[int, ...]]:
    """A file for the ranks' store that vanishes with them: its path in each rank, and the descriptors to inherit."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tunemark-ranks")
        resources.callback(os.close, descriptor)
        return "/proc/self/fd/{}".format(descriptor), (descriptor,)
    folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="tunemark-ranks-"))  # of mode 0700
    return os.path.join(folder, "store"), ()


if __name__ == "__main__":
    sys.exit(RankSupervisor(HostShape(**json.loads(os.environ[SHAPE_VARIABLE])), sys.argv[1:]).run())
