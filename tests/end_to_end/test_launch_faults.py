"""A rank that is killed and a disk that is full, in real runs of two ranks: each is a row, and no process is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

_RUN = ["--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2", "--oversubscribe", "--sequence", "32"]
_RUN += ["--micro-batch", "2", "--no-measure-peak", "--warmup", "1", "--json", "--repeats", "1"]
_RUN += ["--target-interval", "0", "--timeout", "240"]
_ENDLESS = ["--steps", "100000", "--budget", "100000"]

Start = Callable[..., Any]


def _pids(attempt: Path) -> list[int]:
    return [json.loads((attempt / f"records.{rank}.jsonl").read_text().splitlines()[0])["pid"] for rank in range(2)]


def _row(command: Any, pids: list[int], codes: Sequence[int] = (4,)) -> dict[str, Any]:
    row: dict[str, Any] = command.row()
    assert command.job.returncode in codes, command.said
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cwd").exists()]
    return row


def test_the_rank_that_was_killed_is_named_and_no_other_machine_could_reach_it(start: Start) -> None:
    command = start(*_RUN, *_ENDLESS)
    pids = _pids(command.attempt(2, rank=1))
    # The loopback's addresses as /proc writes them.
    assert _listeners([command.job.pid, *pids]) == {"0100007F"}
    os.kill(pids[1], signal.SIGKILL)
    row = _row(command, pids)
    assert row["status"] == "killed"
    assert f"rank 1 (process {pids[1]}) was ended by SIGKILL" in row["each_attempt"][0]["evidence"]


def _listeners(pids: Sequence[int]) -> set[str]:
    """The addresses at which these processes, and those between them, accept connections."""
    everyone = [*pids, *(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids[1:])]
    links = [link for pid in everyone for link in Path(f"/proc/{pid}/fd").iterdir()]
    owned = set()
    for link in links:
        with contextlib.suppress(OSError):
            owned.add(os.readlink(link))
    rows = [row for name in ("tcp", "tcp6") for row in Path("/proc/net", name).read_text().splitlines()[1:]]
    fields = [row.split() for row in rows]
    # State 0A is LISTEN; field 9 is the socket's inode.
    return {row[1].partition(":")[0] for row in fields if row[3] == "0A" and f"socket:[{row[9]}]" in owned}


@pytest.mark.full
def test_ranks_that_are_started_again_are_measured_alone_and_it_is_said(start: Start) -> None:
    command = start(*_RUN, "--steps", "12", "--max-restarts", "1")
    attempt = command.attempt(2, rank=1)
    pids = _pids(attempt)
    os.kill(pids[1], signal.SIGKILL)
    row = _row(command, pids, codes=(0, 1, 3))
    # All steps are of the second life: none of them is between clocks of two processes.
    assert (row["status"], row["attempts"], row["steps_measured"], row["warmup_steps"]) == ("ok", 1, 12, 1)
    (said,) = [finding["message"] for finding in row["findings"] if finding["rule"] == "restarted"]
    assert "started again" in said
    assert row["environment"]["launcher"]["max_restarts"] == 1
    for rank in range(2):
        lives = [attempt / f"records.{rank}.jsonl", attempt / f"records.{rank}.life1.jsonl"]
        started = [json.loads(path.read_text().splitlines()[0]) for path in lives]
        assert started[0]["pid"] != started[1]["pid"]
        steps = [json.loads(line) for line in lives[1].read_text().splitlines() if '"kind":"step"' in line]
        assert [step["step"] for step in steps] == list(range(13))
        assert all(step["instant_s"] > started[1]["instant_s"] for step in steps)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, and a file system of its own to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


@pytest.mark.full
def test_a_full_disk_is_a_row_that_says_so(small_disk: Path, start: Start) -> None:
    command = start(*_RUN, *_ENDLESS, folder=small_disk)
    pids = _pids(command.attempt(2, rank=1))
    _fill(small_disk)
    row = _row(command, pids)
    assert row["status"] == "error"
    assert "are left on the disk" in row["each_attempt"][0]["evidence"]


@pytest.mark.full
def test_a_run_without_room_is_a_row_and_a_store_without_room_is_refused(small_disk: Path, start: Start) -> None:
    words = ["--seed", "0,1", *_ENDLESS]
    command = start(*_RUN, *words, folder=small_disk)
    command.attempt(2, rank=1)
    _fill(small_disk)
    rows = command.rows()
    assert (command.job.returncode, [row["status"] for row in rows]) == (4, ["error", "error"]), command.said
    assert "No space left" in rows[1]["each_attempt"][0]["evidence"]
    assert (rows[1]["stop_reason"], rows[1]["steps_measured"]) == ("store", 0)

    refused = start(*_RUN, *words, folder=small_disk)
    assert refused.ended() == 2
    assert "No space left" in "".join(refused.said)
