"""A host's ranks end together, are started again as often as allowed, and meet where nobody else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import tunemark_worker
from tunemark_worker.rank_supervisor import HostShape

_SUPERVISED = 'import json, os, sys, time, signal\nrank, life = int(os.environ["RANK"]), os.environ["TUNEMARK_LIFE"]\n'


def _start(
    folder: Path, body: str, *, processes: int = 2, max_restarts: int = 0, nodes: int = 1, node: int = 0
) -> subprocess.Popen[bytes]:
    """Start one host's part. body: of each rank, which also leaves its variables in a file."""
    shape = HostShape(nodes, node, processes, max_restarts, host="127.0.0.1", port=1, key="k")
    keep = 'open(f"variables.{rank}.{life}", "w").write(json.dumps(dict(os.environ)))\n'
    words = shape.command(sys.executable, ("-c", _SUPERVISED + keep + body))
    path = str(Path(tunemark_worker.__file__).parent.parent)
    return subprocess.Popen(words, cwd=folder, env={**os.environ, **shape.variables(), "PYTHONPATH": path})


def _exits(folder: Path, node: int = 0) -> list[list[object]]:
    lines = (folder / f"exits.{node}.jsonl").read_text().splitlines()
    return [[row["life"], row["rank"], row["code"], row["asked"]] for row in map(json.loads, lines)]


def _variables(folder: Path, rank: int, life: int = 0) -> dict[str, str]:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        if (path := folder / f"variables.{rank}.{life}").exists() and (text := path.read_text()):
            found: dict[str, str] = json.loads(text)
            return found
        time.sleep(0.01)
    raise AssertionError(f"rank {rank} did not start")


def test_ranks_of_one_host_know_their_places_and_share_a_file_without_a_name(tmp_path: Path) -> None:
    own = 'fd = json.loads(os.environ["TUNEMARK_RANK_STORE"])["path"]\nopen(fd, "a").write("x")\n'
    both = "until = time.monotonic() + 20\nwhile len(open(fd).read()) < 2 and time.monotonic() < until: pass\n"
    assert _start(tmp_path, own + both + "sys.exit(len(open(fd).read()) != 2)").wait(60) == 0
    first, second = (_variables(tmp_path, rank) for rank in range(2))
    assert [second[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == ["1", "1", "2", "2"]
    assert first["GLOO_SOCKET_IFNAME"] == first["NCCL_SOCKET_IFNAME"] == "lo"
    assert "MASTER_PORT" not in first
    assert "TUNEMARK_RANKS" not in first
    assert json.loads(first["TUNEMARK_RANK_STORE"])["path"].startswith("/proc/self/fd/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["variables.0.0", "variables.1.0"]


def test_the_first_failure_ends_the_others_and_its_code_is_the_jobs(tmp_path: Path) -> None:
    body = "if rank == 1: sys.exit(7)\ntime.sleep(60)"
    assert _start(tmp_path, body).wait(60) == 7
    assert _exits(tmp_path) == [[0, 1, 7, False], [0, 0, -signal.SIGTERM, True]]


def test_a_killed_rank_is_noted_before_those_that_lost_it(tmp_path: Path) -> None:
    body = "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(60)"
    assert _start(tmp_path, body, processes=3).wait(60) == 1
    assert _exits(tmp_path)[0] == [0, 1, -signal.SIGKILL, False]


def test_ranks_are_started_again_as_often_as_allowed(tmp_path: Path) -> None:
    assert _start(tmp_path, "sys.exit(rank == 1 and life < '2')", max_restarts=2).wait(60) == 0
    assert [row[:2] for row in _exits(tmp_path) if not row[3]] == [[0, 1], [1, 1]]
    assert _start(tmp_path, "sys.exit(5)", processes=1, max_restarts=1).wait(60) == 5


def test_ranks_of_all_hosts_end_and_start_again_together(tmp_path: Path) -> None:
    body = "if life == '1': sys.exit()\nif rank == 0: sys.exit(3)\ntime.sleep(60)"
    hosts = [_start(tmp_path, body, nodes=2, node=node, max_restarts=1) for node in range(2)]
    assert [host.wait(60) for host in hosts] == [0, 0]
    assert _exits(tmp_path, 1) == [[0, 1, -signal.SIGTERM, True]]
    places = [json.loads(_variables(tmp_path, rank, 1)["TUNEMARK_RANK_STORE"]) for rank in range(2)]
    assert places[0] == places[1]
    assert (places[0]["key"], places[0]["port"]) == ("k.1", json.loads((tmp_path / "life.1.json").read_text())["port"])


def test_no_rank_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    supervisor = _start(tmp_path, 'open(f"pid.{rank}", "w").write(str(os.getpid()))\ntime.sleep(60)')
    for rank in range(2):
        _variables(tmp_path, rank)
    time.sleep(0.05)
    supervisor.kill()
    supervisor.wait()
    pids = [int((tmp_path / f"pid.{rank}").read_text()) for rank in range(2)]
    until_s = time.monotonic() + 10
    while any(_is_running(pid) for pid in pids) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
