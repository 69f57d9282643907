"""A process of its own that speaks with Ray, and what the launcher says to it.

Ray ends the process of a driver by itself, without an exception, when the head of its cluster has been gone for a
minute, and calls to a head that does not answer can wait for ever. In a process of its own, either is an error of the
call, and the runs of a sweep end as rows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

# Seconds that Ray may take to answer (it waits for a minute itself for a head that is started again), and to let
# a driver in: a cluster may have to be started first.
_ANSWER_S = 60.0
_CONNECT_S = 300.0
# For a cluster started here: by default its workers have a niceness of 15, and Ray reports usage over the network.
_LOCAL_VARIABLES = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class RaySilenceError(Exception):
    """Ray gave no answer, and from now on gives none: its words say how that was seen."""


class RayRefusalError(Exception):
    """Ray answered with an error: `kind` is the name of its type."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind, self.words = kind, words


@dataclass(frozen=True)
class RayTaskEnd:
    """How the task of one host ended: its exit code, or the type and the words of Ray's error."""

    node: int
    code: int | None = None
    kind: str = ""
    words: str = ""


class RayDriver:
    """The launcher's end. Every call raises RaySilenceError once the process has ended or been silent too long."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C is the launcher's to answer.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tunemark_launchers.ray_driver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._gone = ""

    def connect(self, address: str, port: int) -> str:
        """Become a driver of that cluster (address `local`: of a new one on this host). Returns Ray's version."""
        return str(self._call("connect", address, port, seconds=_CONNECT_S))

    def hosts(self) -> list[Mapping[str, float]]:
        """The resources of each host that is alive."""
        return list(self._call("hosts"))

    def place(self, name: str, bundle: Mapping[str, int], nodes: int) -> str:
        """Ask for a placement group with such a bundle on each of `nodes` hosts. Returns its id."""
        return str(self._call("place", name, dict(bundle), nodes))

    def is_placed(self, group: str) -> bool:
        return bool(self._call("is_placed", group))

    def begin(self, group: str, name: str, words: Sequence[Sequence[str]], variables: Mapping[str, str]) -> None:
        """Start one command in each bundle of the group: node i runs `words[i]`."""
        self._call("begin", group, name, [list(each) for each in words], dict(variables))

    def collect(self, group: str) -> list[RayTaskEnd]:
        """How those tasks of the group ended that have ended since the last call."""
        return list(self._call("collect", group))

    def remove(self, group: str) -> None:
        """Remove the group: this ends tasks that hang or have not begun."""
        self._call("remove", group)

    def close(self) -> None:
        """Leave the cluster, and end one that was started here."""
        with contextlib.suppress(RaySilenceError, RayRefusalError):
            self._call("shutdown")
        self._end("the driver was closed")

    def _call(self, name: str, *arguments: Any, seconds: float = _ANSWER_S) -> Any:
        if self._gone:
            raise RaySilenceError(self._gone)
        try:
            self._connection.send((name, arguments))
            if not self._connection.poll(seconds):
                self._end(f"Ray does not answer: nothing came of `{name}` in {seconds:.0f} s")
                raise RaySilenceError(self._gone)
            kind, answer = self._connection.recv()
        except (EOFError, OSError):
            self._end("Ray ended its driver: the head of the cluster is gone, or has not answered for a minute")
            raise RaySilenceError(self._gone) from None
        if kind:
            raise RayRefusalError(kind, answer)
        return answer

    def _end(self, words: str) -> None:
        self._gone = self._gone or words
        self._connection.close()
        # It leaves by itself when the connection is closed, unless Ray holds it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        self._process.kill()
        self._process.wait()


class _RayCluster:
    """The driver's end: what it is asked to do with Ray."""

    def __init__(self) -> None:
        self._ray: Any = None
        self._groups: dict[str, Any] = {}
        self._tasks: dict[str, list[Any]] = {}
        self._collected: dict[str, set[int]] = {}

    def connect(self, address: str, port: int) -> str:
        import ray  # heavy and optional

        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": None}
        if address == "local":
            os.environ.update({name: value for name, value in _LOCAL_VARIABLES.items() if name not in os.environ})
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            ray.init(address="local", num_cpus=cores, **{**quiet, "include_dashboard": False})
        else:
            ray.init(address=address if address == "auto" else f"{address}:{port}", **quiet)
        self._ray = ray
        return str(ray.__version__)

    def hosts(self) -> list[Mapping[str, float]]:
        return [dict(node["Resources"]) for node in self._ray.nodes() if node["Alive"]]

    def place(self, name: str, bundle: dict[str, int], nodes: int) -> str:
        from ray.util.placement_group import placement_group  # heavy and optional

        spread = "STRICT_SPREAD" if nodes > 1 else "STRICT_PACK"
        group = placement_group([dict(bundle) for _ in range(nodes)], strategy=spread, name=name)
        self._groups[group.id.hex()] = group
        return str(group.id.hex())

    def is_placed(self, group: str) -> bool:
        from ray.util import placement_group_table  # heavy and optional

        return bool(placement_group_table(self._groups[group])["state"] == "CREATED")

    def begin(self, group: str, name: str, words: list[list[str]], variables: dict[str, str]) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # heavy and optional

        self._tasks[group], self._collected[group] = [], set()
        for node, (command, bundle) in enumerate(zip(words, self._groups[group].bundle_specs, strict=True)):
            options = {
                "num_cpus": bundle["CPU"],
                "num_gpus": bundle.get("GPU", 0),
                "max_retries": 0,
                "name": f"{name}.{node}",
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement_group=self._groups[group], placement_group_bundle_index=node
                ),
            }
            # Values of exported variables are passed as arguments, in Ray's memory: a runtime environment would be
            # visible in its dashboard, and a command line on the host.
            self._tasks[group].append(self._ray.remote(**options)(_make_task()).remote(command, variables))

    def collect(self, group: str) -> list[RayTaskEnd]:
        tasks = self._tasks[group]
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        ended = [node for node, task in enumerate(tasks) if task in ready and node not in self._collected[group]]
        self._collected[group].update(ended)
        return [self._end_of(node, tasks[node]) for node in ended]

    def remove(self, group: str) -> None:
        from ray.util import remove_placement_group  # heavy and optional

        self._tasks.pop(group, None)
        remove_placement_group(self._groups.pop(group))

    def shutdown(self) -> None:
        if self._ray is not None:
            self._ray.shutdown()

    def _end_of(self, node: int, task: Any) -> RayTaskEnd:
        try:
            return RayTaskEnd(node, code=int(self._ray.get(task)))
        except self._ray.exceptions.RayError as error:
            return RayTaskEnd(node, kind=type(error).__name__, words=_one_line(error))


def _make_task() -> Callable[[list[str], dict[str, str]], int]:
    """The task that Ray's workers run. A nested function is sent by value: tunemark is not installed there."""

    def agent(words: list[str], variables: dict[str, str]) -> int:
        import contextlib
        import os
        import subprocess

        # Where only root may lower a worker's niceness, it stays; the agent reports it.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        return subprocess.Popen(
            words, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, start_new_session=True
        ).wait()

    return agent


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def answer(connection: Connection) -> None:
    """Do what is asked until the launcher is gone; Ray then ends this driver's tasks."""
    cluster = _RayCluster()
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, arguments = connection.recv()
            try:
                reply = ("", getattr(cluster, name)(*arguments))
            except Exception as error:  # whatever Ray raises is the launcher's to tell
                reply = (type(error).__name__, _one_line(error.__cause__ or error))
            connection.send(reply)


if __name__ == "__main__":
    # The module by its name: under the name __main__ the launcher could not read what is sent to it.
    from tunemark_launchers.ray_driver import answer

    # The launcher decides when this process ends, and Ray puts handlers of its own in place.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer(Connection(int(sys.argv[1])))
