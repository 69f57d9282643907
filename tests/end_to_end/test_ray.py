"""The launcher `ray` against a real Ray: one that the command starts itself, and a cluster of two hosts by name."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_RUN = ["--model", "mistral-tiny", "--dataset", "synthetic"]
_RUN += ["--sequence", "32", "--micro-batch", "2", "--no-measure-peak", "--warmup", "2", "--repeats", "1", "--json"]
_RUN += ["--target-interval", "0", "--timeout", "120"]
_TWO = ["--strategy", "ddp", "--device", "cpu:2"]
_ENDLESS = ["--steps", "100000", "--budget", "100000"]
# Of a rank that is not heard of, of an agent that waits for it, and of Ray itself on a busy machine.
_PATIENCE_S = 300

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray"),
]

Start = Callable[..., Any]


class Cluster:
    """Two hosts of Ray's, one core each, both on this machine. Each `ray start --block` ends what it started."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # Whoever asks this cluster for anything has to have its token.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
        self.variables = {**os.environ, **token, **quiet}
        self.hosts: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        here = "--node-ip-address=127.0.0.1"
        self._start("--head", f"--port={self.port}", "--include-dashboard=false", here)
        self._wait(1)
        self._start(f"--address=127.0.0.1:{self.port}", here)
        self._wait(2)

    @property
    def launcher(self) -> str:
        return f"ray:address=127.0.0.1:port={self.port}:exclusive=false"

    def close(self) -> None:
        for host in reversed(self.hosts):
            host.terminate()
        for host in reversed(self.hosts):
            try:
                host.wait(60)
            except subprocess.TimeoutExpired:
                host.kill()

    def _start(self, *words: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.hosts.append(subprocess.Popen(command, env=self.variables, start_new_session=True, **quiet))

    def _wait(self, count: int) -> None:
        """Until Ray counts so many hosts."""
        program = "import ray, sys\nray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
        program += "print(sum(node['Alive'] for node in ray.nodes()))"
        until_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            words = [sys.executable, "-c", program, f"127.0.0.1:{self.port}"]
            done = subprocess.run(words, env=self.variables, capture_output=True, text=True)
            if done.stdout.strip() == str(count):
                return
        raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster()
    try:
        started.open()
        yield started
    finally:
        started.close()


def _children(parent: int) -> dict[int, str]:
    """The command lines of a process's children, by pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(parent):
                found[int(path.parent.name)] = (path.parent / "cmdline").read_text(errors="replace")
    return found


def _children_of_ray(parent: int) -> list[str]:
    return [words for words in _children(parent).values() if "/ray/" in words]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_gang_on_two_hosts_trains_and_no_secret_is_written(cluster: Cluster, start: Start, tmp_path: Path) -> None:
    variables = {**cluster.variables, "SECRET_OF_MINE": "do-not-write-me"}
    words = ["--launcher", f"{cluster.launcher}:nodes=2", "--export", "SECRET_OF_MINE"]
    command = start(*_RUN, *_TWO, "--steps", "6", *words, variables=variables)
    row = command.row()
    assert (row["status"], row["steps_measured"]) == ("ok", 6), row["each_attempt"]
    launcher = row["environment"]["launcher"]
    assert len(launcher["hosts"]) == 2
    # Each took a core that the other has not.
    assert launcher["cores"][0] != launcher["cores"][1]
    assert row["queue_s"] >= 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"do-not-write-me" not in path.read_bytes(), path
    assert not command.left()


def test_a_sweep_fills_the_cluster_and_jobs_have_cores_of_their_own(
    cluster: Cluster, start: Start, tmp_path: Path
) -> None:
    words = ["--device", "cpu:1", "--seed", "0,1,2", "--launcher", cluster.launcher]
    rows = start(*_RUN, *words, "--steps", "6", variables=cluster.variables).rows()
    assert [row["status"] for row in rows] == ["ok"] * 3
    spans = []
    for path in tmp_path.glob("runs/*/*/agent.0.jsonl"):
        said = [json.loads(line) for line in path.read_text().splitlines()]
        began = next(row for row in said if row["event"] == "started")
        ended = next(row for row in said if row["event"] == "ended")
        spans.append((began["utc"], ended["utc"], began["cores"]))
    first, second, third = sorted(spans)
    # Two cores are two jobs at one time, and the third has waited for one of them.
    assert second[0] < first[1]
    assert first[2] != second[2]
    assert third[0] > min(first[1], second[1])


def test_a_job_that_does_not_fit_is_refused_before_anything_starts(
    cluster: Cluster, start: Start, tmp_path: Path
) -> None:
    words = ["--strategy", "ddp", "--device", "cpu:8", "--steps", "6", "--launcher", cluster.launcher]
    command = start(*_RUN, *words, variables=cluster.variables)
    assert command.ended() == 2
    assert "Ray has 0 hosts of 8 cores" in "".join(command.said)
    assert not list(tmp_path.glob("runs/*/*/plan.json"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_command_that_ends_leaves_no_process(start: Start, number: signal.Signals) -> None:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = start(*_RUN, *_TWO, *_ENDLESS, "--launcher", "ray:address=local", variables=variables)
    command.attempt(2)
    driver = next(pid for pid, words in _children(command.job.pid).items() if "ray_driver" in words)
    cluster = [pid for pid, words in _children(driver).items() if "/ray/" in words]
    assert cluster
    command.job.send_signal(number)
    assert command.ended() == (130 if number == signal.SIGTERM else -9), command.said
    assert not command.left()
    until_s = time.monotonic() + 60.0
    while any(map(_is_running, [driver, *cluster])) and time.monotonic() < until_s:
        time.sleep(0.1)
    assert not [pid for pid in [driver, *cluster] if _is_running(pid)]


def test_a_host_that_is_lost_is_a_row_and_leaves_no_process(cluster: Cluster, start: Start) -> None:
    words = ["--launcher", f"{cluster.launcher}:nodes=2"]
    command = start(*_RUN, *_TWO, *_ENDLESS, *words, variables=cluster.variables)
    command.attempt(2)
    # The last test of this cluster, which is not whole any more.
    raylets = [words for words in _children_of_ray(cluster.hosts[1].pid) if "raylet/raylet" in words]
    assert raylets
    os.killpg(cluster.hosts[1].pid, signal.SIGKILL)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_text(errors="replace") in raylets:
                os.kill(int(path.parent.name), signal.SIGKILL)
    row = command.row()
    assert row["status"] == "killed", row["each_attempt"]
    assert not command.left()
