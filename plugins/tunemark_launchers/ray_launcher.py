"""The launcher `ray`: a placement group for each attempt, one bundle on each host, in which an agent starts the ranks.

Ray starts the bundles of a group together or not at all, so several jobs of a sweep can share a cluster. The timed
processes are not Ray workers: a Ray task starts the agent and waits for it, and the agent starts the ranks as with any
launcher. Ray counts cores but does not bind processes to them, so the agents of a host divide them by locks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec, LaunchConfig, StartedJob
from tunemark_launchers.agents import GRACE_S, HostAgents, check_nodes, count_nodes, parse_numeric_options, write_job
from tunemark_worker.contract import code_variables
from tunemark_worker.host_agent import EXIT_UNAVAILABLE, EXIT_UNREADABLE

# Seconds between two queries of Ray.
_POLL_S = 0.5
_DEFAULT_JOBS = 8
# For a cluster started here: by default its workers have a niceness of 15, and Ray reports usage over the network.
_LOCAL_VARIABLES = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}

OPTIONS = {
    "address": "a host of the cluster; `auto`: the cluster of this host; `local`: a new one on this host alone, "
    "ended with the sweep (auto)",
    "port": "of the cluster at that host (6379)",
    "nodes": "hosts of each job (1)",
    "jobs": f"jobs of a sweep that wait or run at the same time ({_DEFAULT_JOBS})",
    "exclusive": "true or false: whether a job has its hosts to itself (true); else it shares hosts, but no cores",
}


class RayLauncher:
    """Creates placement groups in a Ray cluster. One driver for the whole sweep."""

    def __init__(self, options: Mapping[str, str], export: Sequence[str], say: Callable[[str], None]) -> None:
        self._options, self._export, self._say = options, tuple(export), say
        numbers = parse_numeric_options(options, ("nodes", "jobs", "port"), "ray")
        self._nodes, self.max_jobs = numbers.get("nodes", 1), numbers.get("jobs", _DEFAULT_JOBS)
        self._port = numbers.get("port", 6379)
        if options.get("exclusive", "true") not in ("true", "false"):
            raise BadExperiment(what=f"exclusive cannot be {options['exclusive']!r}", next="true or false")
        self._is_exclusive = options.get("exclusive", "true") == "true"
        self._ray: Any = None

    def check(self, launch: LaunchConfig, store: Path) -> None:
        nodes = count_nodes(launch.nodes, self._options, self._nodes, "ray")
        check_nodes(launch.processes, nodes, "ray")
        if self._ray is None:
            self._ray = _connect(self._options.get("address", "auto"), self._port)
        cores, gpus = _per_node(launch.processes, launch.threads, int(str(launch.options.get("gpus", 0))), nodes)
        suitable = [each for each in self._hosts() if each.get("CPU", 0) >= cores and each.get("GPU", 0) >= gpus]
        if len(suitable) < nodes:
            shown = ", ".join(f"{each.get('CPU', 0):g} cores {each.get('GPU', 0):g} GPUs" for each in self._hosts())
            raise BadExperiment(
                what=f"Ray has {len(suitable)} hosts of {cores} cores and {gpus} GPUs, the job needs {nodes}",
                why=f"its hosts: {shown or 'none'}",
                next="a smaller size, another number of nodes, or more hosts: `ray status` shows them",
            )

    def start(self, job: JobSpec) -> StartedJob:
        nodes = count_nodes(job.nodes, self._options, self._nodes, "ray")
        cores, gpus = _per_node(job.processes, job.threads, job.gpus, nodes)
        write_job(job, nodes, self._export, cores=None if self._is_exclusive else cores)
        if self._is_exclusive:
            # All cores of the smallest of the `nodes` largest hosts; the agents' locks keep larger hosts from being
            # shared.
            totals = sorted((each.get("CPU", 0) for each in self._hosts() if each.get("GPU", 0) >= gpus), reverse=True)
            cores = max(cores, int(totals[nodes - 1])) if len(totals) >= nodes else cores
        variables = {name: os.environ[name] for name in self._export}
        return RayJob(job, self._ray, {"CPU": cores, **({"GPU": gpus} if gpus else {})}, nodes, variables)

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """None: Ray ends the tasks of a driver when the driver ends."""
        return None

    def close(self) -> None:
        if self._ray is not None:
            self._ray.shutdown()

    def _hosts(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]


class RayJob:
    """One placement group, with a task in each of its bundles."""

    def __init__(
        self, job: JobSpec, ray: Any, bundle: Mapping[str, int], nodes: int, variables: Mapping[str, str]
    ) -> None:
        from ray.util.placement_group import placement_group  # heavy and optional

        self._job, self._ray, self._bundle, self._variables = job, ray, bundle, variables
        self._agents = HostAgents(job.folder, nodes)
        spread = "STRICT_SPREAD" if nodes > 1 else "STRICT_PACK"
        self._group = placement_group([dict(bundle) for _ in range(nodes)], strategy=spread, name=job.name)
        self._tasks: list[Any] = []
        self._codes: dict[int, int] = {}
        self._began_s = time.monotonic()
        self._queue_s: float | None = None
        self._polled_s = 0.0
        self._failure: tuple[str, str, str] | None = None
        self._is_removed = False

    def exit_code(self) -> int | None:
        code = self._agents.exit_code()
        if code is None:
            self._poll()
            code = self._agents.exit_code()
        if code is None and (self._failure or self._is_removed):
            return EXIT_UNAVAILABLE
        return code

    def is_waiting(self) -> bool:
        return not self._tasks and not self._is_removed

    def interrupt(self) -> None:
        self._agents.write_order("term")

    def stacks(self, pids: Mapping[int, int]) -> str:
        return self._agents.stacks()

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if self._is_removed:
            return
        if self._tasks:
            if graceful and self.exit_code() is None:
                self.interrupt()
                self._wait(GRACE_S)
            if not self._agents.all_ended():
                self._agents.write_order("kill")
                self._wait(10.0)
        self._is_removed = True
        # Removing the group also ends tasks that hang or have not begun.
        from ray.util import remove_placement_group  # heavy and optional

        with contextlib.suppress(self._ray.exceptions.RayError):
            remove_placement_group(self._group)

    def facts(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"group": self._group.id.hex(), "ray": self._ray.__version__, **self._agents.facts()}
        if self._queue_s is not None:
            found["queue_s"] = self._queue_s
        if self._failure:
            found["failure"], found["failure_status"], found["failure_reason"] = self._failure
        return found

    def _poll(self) -> None:
        now_s = time.monotonic()
        if now_s - self._polled_s < _POLL_S or self._is_removed:
            return
        self._polled_s = now_s
        try:
            if not self._tasks:
                self._begin_when_placed(now_s)
            else:
                self._collect()
        except self._ray.exceptions.RayError as error:
            self._failure = (f"Ray does not answer: {error}", "error", "ray")

    def _begin_when_placed(self, now_s: float) -> None:
        from ray.util import placement_group_table  # heavy and optional
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if placement_group_table(self._group)["state"] != "CREATED":
            return
        self._queue_s = now_s - self._began_s
        for node in range(self._group.bundle_count):
            words = ["-m", "tunemark_worker.agent", str(self._job.folder), "--node", str(node), "--with-parent"]
            options = {
                "num_cpus": self._bundle["CPU"],
                "num_gpus": self._bundle.get("GPU", 0),
                "max_retries": 0,
                "name": f"{self._job.name}.{node}",
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement_group=self._group, placement_group_bundle_index=node
                ),
            }
            # Values of exported variables are passed as arguments, in Ray's memory: a runtime environment would be
            # visible in its dashboard, and a command line on the host.
            variables = {**self._variables, **code_variables(str(self._job.code))}
            remote = self._ray.remote(**options)(_make_task())
            self._tasks.append(remote.remote([self._job.python, *words], variables))

    def _collect(self) -> None:
        ready, _ = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        for node, task in enumerate(self._tasks):
            if task not in ready or node in self._codes:
                continue
            try:
                self._codes[node] = int(self._ray.get(task))
            except self._ray.exceptions.OutOfMemoryError as error:
                self._failure = (_one_line(error), "oom", "host memory")
            except self._ray.exceptions.RayError as error:
                reason = "node failed" if "node" in type(error).__name__.lower() else "ray"
                self._failure = (f"{type(error).__name__}: {_one_line(error)}", "killed", reason)
            else:
                if self._codes[node] == EXIT_UNREADABLE:
                    words = f"a Ray host does not see {self._job.folder}: the store must be on a file system that "
                    self._failure = (f"{words}every host mounts at the same path", "error", "no shared file system")
                elif node not in self._agents.last_events("ended"):
                    words = f"the agent of host {node} ended with code {self._codes[node]}"
                    self._failure = (words, "error", "launcher")
        self._agents.kill_if_one_refused()

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while self.exit_code() is None and time.monotonic() < until_s:
            time.sleep(0.1)


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


def _connect(address: str, port: int) -> Any:
    """The module ray, as a driver of that cluster."""
    with _keep_signal_handler():
        try:
            import ray  # heavy and optional
        except ImportError as error:
            raise BadExperiment(
                what="the launcher ray needs the package ray",
                why=str(error),
                next="pip install 'tunemark[ray]', the same version as the cluster's",
            ) from error
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": None}
        try:
            if address == "local":
                os.environ.update({name: value for name, value in _LOCAL_VARIABLES.items() if name not in os.environ})
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
                ray.init(address="local", num_cpus=cores, **{**quiet, "include_dashboard": False})
            else:
                ray.init(address=address if address == "auto" else f"{address}:{port}", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadExperiment(
                what=f"no Ray cluster at {address!r}",
                why=_one_line(error.__cause__ or error),
                next="`ray status` shows whether there is one; --launcher ray:address=local starts one on this host",
            ) from error
    return ray


@contextlib.contextmanager
def _keep_signal_handler() -> Iterator[None]:
    """Keep our handler: Ray installs its own for SIGTERM, which would end a sweep without its report."""
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _per_node(processes: int, threads: int, gpus: int, nodes: int) -> tuple[int, int]:
    return processes // nodes * threads, gpus // nodes


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
