"""Faults of what starts a job's ranks: the agent on a host, Slurm's controller, the head of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from campaign.cases import NotHere, wait_until
from campaign.ranks import BOUNDS, Asked, Row, Sweep, add_rank_case, slurm_of_two_nodes, watched

# Seconds: of a host's silence and then of its ranks' end; of a run that goes on without its controller, for which
# Slurm's own commands look half a minute each; of a cluster that is lost.
BOUNDS.update({"agent": 80.0, "controller": 150.0, "head": 150.0})
# Of a run whose agent is lost, soon after it began: longer than a host may be silent.
_LASTS_S = 60
# Of an agent that is stopped: longer than a host may be silent.
_STOPPED_S = 30.0


def _join(sweep: Sweep, folder: Path) -> subprocess.Popen[bytes]:
    """The other host of a sweep: what its command says is typed there."""
    line = sweep.wait(
        lambda: next((each for each in sweep.said if each.startswith("  env PYTHONPATH=")), ""), "its line"
    )
    folder.mkdir(exist_ok=True)
    with open(folder / "guest.log", "ab") as log:
        return subprocess.Popen(shlex.split(line), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _add_agent(name: str, number: signal.Signals, what: str, words: str) -> None:
    """A signal to the agent of the second host. It joins again, so that the next run is measured."""

    def inject(folder: Path, asked: Asked) -> Row:
        place = folder / "sweep"
        place.mkdir()
        sweep = Sweep(place, ranks=2, words=["--launcher", "nodes:host=127.0.0.1"], lasts_s=_LASTS_S)
        guests = [_join(sweep, folder / "guest")]

        def plant(attempt: Path) -> None:
            guests[0].send_signal(number)
            if number == signal.SIGSTOP:
                threading.Timer(_STOPPED_S, guests[0].send_signal, [signal.SIGCONT]).start()

        def mend() -> None:
            if number != signal.SIGSTOP:
                guests.append(_join(sweep, folder / "guest"))

        return watched("agent", sweep, plant, expected=["killed"], step=2, mend=mend)

    add_rank_case(f"agent-{name}", f"{what} to the agent of another host", inject, words, ranks=2)


_add_agent("killed", signal.SIGKILL, "SIGKILL", "no sign of life")
_add_agent("stopped", signal.SIGSTOP, "SIGSTOP", "no sign of life")
_add_agent("terminated", signal.SIGTERM, "SIGTERM", "")
_add_agent("interrupted", signal.SIGINT, "SIGINT", "")
_add_agent("hung-up", signal.SIGHUP, "SIGHUP", "no sign of life")


def _slurm_agent(folder: Path, asked: Asked) -> Row:
    """The agent that Slurm started on one of two nodes is killed."""
    with slurm_of_two_nodes(folder) as (place, variables):
        sweep = Sweep(place, ranks=2, variables=variables, words=["--launcher", "slurm:nodes=2:jobs=1"])

        def plant(attempt: Path) -> None:
            started = re.search(r'"pid": (\d+)', (attempt / "agent.1.jsonl").read_text())
            assert started is not None, "it has begun"
            os.kill(int(started[1]), signal.SIGKILL)

        return watched("agent", sweep, plant, expected=["killed", "error"], step=asked.step())


def _controller(folder: Path, asked: Asked, comes_back: bool) -> Row:
    """Slurm's controller is killed. The job goes on; what comes next waits for it, or says that it is gone."""
    with slurm_of_two_nodes(folder) as (place, variables):
        sweep = Sweep(place, ranks=2, variables=variables, words=["--launcher", "slurm:nodes=2:jobs=1"])

        def plant(attempt: Path) -> None:
            os.kill(int((Path(variables["SLURM_CONF"]).parent / "slurmctld.pid").read_text()), signal.SIGKILL)
            if comes_back:
                threading.Timer(3.0, subprocess.run, [["slurmctld"]], {"env": {**os.environ, **variables}}).start()

        return watched("controller", sweep, plant, expected=["ok"], step=asked.step())


def _head(folder: Path, asked: Asked) -> Row:
    """The head of a Ray cluster is killed, with the whole cluster of one host: no other run can begin."""
    with _ray_cluster(folder) as (place, launcher, variables, head):
        sweep = Sweep(place, ranks=2, variables=variables, words=["--launcher", launcher])
        return watched("head", sweep, lambda attempt: head(), expected=["killed", "error"], step=2)


@contextmanager
def _ray_cluster(folder: Path) -> Iterator[tuple[Path, str, dict[str, str], Callable[[], None]]]:
    """A Ray of one host: the folder of a sweep, its launcher and variables, and what kills the head."""
    if importlib.util.find_spec("ray") is None:
        raise NotHere("needs the package ray")
    place = folder / "sweep"
    place.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    variables.update(RAY_worker_niceness="0", OMP_NUM_THREADS="1", RAY_TMPDIR=str(folder))
    words = ["--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words]
    with open(folder / "ray.log", "wb") as log:
        cluster = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)

    def is_open() -> bool:
        # Its port is open before the host has joined it.
        return "Ray runtime started" in (folder / "ray.log").read_text(errors="replace")

    def kill_head() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                said = path.read_text(errors="replace")
                if "/gcs_server" in said and f"={port}\0" in said:
                    os.kill(int(path.parent.name), signal.SIGKILL)

    try:
        wait_until(is_open, "Ray's cluster", 300)
        yield place, f"ray:address=127.0.0.1:port={port}", variables, kill_head
    finally:
        cluster.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.wait(60)
        cluster.kill()


add_rank_case("slurm-agent", "SIGKILL of the agent that Slurm started on a node", _slurm_agent, ranks=2)
add_rank_case(
    "slurm-controller", "Slurm's controller is killed, and is back after three seconds",
    lambda folder, asked: _controller(folder, asked, True), ranks=2,
)  # fmt: skip
add_rank_case(
    "slurm-controller-gone", "Slurm's controller is killed and stays away",
    lambda folder, asked: _controller(folder, asked, False), ranks=2, after="error",
)  # fmt: skip
add_rank_case("ray-head", "SIGKILL of the head of a Ray cluster", _head, ranks=2, after="error")
