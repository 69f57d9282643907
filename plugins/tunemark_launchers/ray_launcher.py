"""The launcher `ray`: a placement group for each attempt, one bundle on each host, in which an agent starts the ranks.

Ray starts the bundles of a group together or not at all, so several jobs of a sweep can share a cluster. The timed
processes are not Ray workers: a Ray task starts the agent and waits for it, and the agent starts the ranks as with any
launcher. Ray counts cores but does not bind processes to them, so the agents of a host divide them by locks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec, LaunchConfig, StartedJob
from tunemark_launchers.agents import GRACE_S, HostAgents, check_nodes, count_nodes, parse_numeric_options, write_job
from tunemark_launchers.ray_driver import RayDriver, RayRefusalError, RaySilenceError
from tunemark_worker.contract import code_variables
from tunemark_worker.host_agent import EXIT_UNAVAILABLE, EXIT_UNREADABLE

# Seconds between two queries of Ray.
_POLL_S = 0.5
_DEFAULT_JOBS = 8

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
        self._driver: RayDriver | None = None
        self._version = ""

    def check(self, launch: LaunchConfig, store: Path) -> None:
        nodes = count_nodes(launch.nodes, self._options, self._nodes, "ray")
        check_nodes(launch.processes, nodes, "ray")
        hosts = self._connected_hosts()
        cores, gpus = _per_node(launch.processes, launch.threads, int(str(launch.options.get("gpus", 0))), nodes)
        suitable = [each for each in hosts if each.get("CPU", 0) >= cores and each.get("GPU", 0) >= gpus]
        if len(suitable) < nodes:
            shown = ", ".join(f"{each.get('CPU', 0):g} cores {each.get('GPU', 0):g} GPUs" for each in hosts)
            raise BadExperiment(
                what=f"Ray has {len(suitable)} hosts of {cores} cores and {gpus} GPUs, the job needs {nodes}",
                why=f"its hosts: {shown or 'none'}",
                next="a smaller size, another number of nodes, or more hosts: `ray status` shows them",
            )

    def start(self, job: JobSpec) -> StartedJob:
        assert self._driver is not None, "check() comes first"
        nodes = count_nodes(job.nodes, self._options, self._nodes, "ray")
        cores, gpus = _per_node(job.processes, job.threads, job.gpus, nodes)
        write_job(job, nodes, self._export, cores=None if self._is_exclusive else cores)
        variables = {name: os.environ[name] for name in self._export}
        started = RayJob(job, self._driver, self._version, nodes, variables)
        started.ask_for_hosts(cores, gpus, is_exclusive=self._is_exclusive)
        return started

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """None: Ray ends the tasks of a driver when the driver ends."""
        return None

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def _connected_hosts(self) -> list[Mapping[str, float]]:
        """The hosts of the cluster; the first call becomes a driver of it."""
        address = self._options.get("address", "auto")
        try:
            if self._driver is None:
                self._driver = RayDriver()
                self._version = self._driver.connect(address, self._port)
            return self._driver.hosts()
        except RayRefusalError as error:
            self.close()
            if error.kind in ("ImportError", "ModuleNotFoundError"):
                raise BadExperiment(
                    what="the launcher ray needs the package ray",
                    why=error.words,
                    next="pip install 'tunemark[ray]', the same version as the cluster's",
                ) from error
            why = error.words
        except RaySilenceError as error:
            why = str(error)
        raise BadExperiment(
            what=f"no Ray cluster at {address!r}",
            why=why,
            next="`ray status` shows whether there is one; --launcher ray:address=local starts one on this host",
        )


class RayJob:
    """One placement group, with a task in each of its bundles."""

    def __init__(self, job: JobSpec, driver: RayDriver, version: str, nodes: int, variables: Mapping[str, str]) -> None:
        self._job, self._driver, self._version, self._variables = job, driver, version, variables
        self._nodes = nodes
        self._agents = HostAgents(job.folder, nodes)
        self._group = ""
        self._has_begun = False
        self._began_s = time.monotonic()
        self._queue_s: float | None = None
        self._polled_s = 0.0
        self._failure: tuple[str, str, str] | None = None
        self._is_removed = False

    def ask_for_hosts(self, cores: int, gpus: int, *, is_exclusive: bool) -> None:
        """Ask for a group of bundles. A cluster that is gone by now makes this run a failed one, as any later fault."""
        with self._failing():
            if is_exclusive:
                # All cores of the smallest of the `nodes` largest hosts; the agents' locks keep larger hosts from being
                # shared.
                hosts = [each for each in self._driver.hosts() if each.get("GPU", 0) >= gpus]
                totals = sorted((each.get("CPU", 0) for each in hosts), reverse=True)
                cores = max(cores, int(totals[self._nodes - 1])) if len(totals) >= self._nodes else cores
            bundle = {"CPU": cores, **({"GPU": gpus} if gpus else {})}
            self._group = self._driver.place(self._job.name, bundle, self._nodes)

    def exit_code(self) -> int | None:
        code = self._agents.exit_code()
        if code is None:
            self._poll()
            code = self._agents.exit_code()
        if code is None and (self._failure or self._is_removed):
            return EXIT_UNAVAILABLE
        return code

    def is_waiting(self) -> bool:
        return not self._has_begun and not self._is_removed and not self._failure

    def interrupt(self) -> None:
        self._agents.write_order("term")

    def stacks(self, pids: Mapping[int, int]) -> str:
        return self._agents.stacks()

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if self._is_removed:
            return
        if self._has_begun:
            if graceful and self.exit_code() is None:
                self.interrupt()
                self._wait(GRACE_S)
            if not self._agents.all_ended():
                self._agents.write_order("kill")
                self._wait(10.0)
        self._is_removed = True
        if self._group:
            with contextlib.suppress(RaySilenceError, RayRefusalError):
                self._driver.remove(self._group)

    def facts(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"group": self._group, "ray": self._version, **self._agents.facts()}
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
        with self._failing():
            if self._has_begun:
                self._collect()
            elif self._driver.is_placed(self._group):
                self._queue_s = now_s - self._began_s
                agent = ["-m", "tunemark_worker.agent", str(self._job.folder)]
                words = [[self._job.python, *agent, "--node", str(i), "--with-parent"] for i in range(self._nodes)]
                variables = {**self._variables, **code_variables(str(self._job.code))}
                self._driver.begin(self._group, self._job.name, words, variables)
                self._has_begun = True

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What Ray does not answer, or refuses, is the run's failure."""
        try:
            yield
        except RaySilenceError as error:
            self._failure = (str(error), "killed" if self._has_begun else "error", "ray")
        except RayRefusalError as error:
            self._failure = (f"Ray refuses: {error}", "error", "ray")

    def _collect(self) -> None:
        for end in self._driver.collect(self._group):
            if end.code is None:
                if end.kind == "OutOfMemoryError":
                    self._failure = (end.words, "oom", "host memory")
                else:
                    reason = "node failed" if "node" in end.kind.lower() else "ray"
                    self._failure = (f"{end.kind}: {end.words}", "killed", reason)
                continue
            if end.code == EXIT_UNREADABLE:
                words = f"a Ray host does not see {self._job.folder}: the store must be on a file system that "
                self._failure = (f"{words}every host mounts at the same path", "error", "no shared file system")
            elif end.node not in self._agents.last_events("ended"):
                words = f"the agent of host {end.node} ended with code {end.code}"
                # A negative code is the signal that ended it: its host is going, and Ray's word of that is yet to come.
                self._failure = (words, "killed" if end.code < 0 else "error", "launcher")
        self._agents.kill_if_one_refused()

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while self.exit_code() is None and time.monotonic() < until_s:
            time.sleep(0.1)


def _per_node(processes: int, threads: int, gpus: int, nodes: int) -> tuple[int, int]:
    return processes // nodes * threads, gpus // nodes
