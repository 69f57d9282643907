"""A rank that is killed and a disk that is full, in real runs of two ranks: each is a row, and no process is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

_RUN = [sys.executable, "-m", "tunemark", "run", "--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2"]
_RUN += ["--oversubscribe", "--sequence", "32", "--micro-batch", "2", "--no-calibrate", "--warmup", "1", "--json"]
_RUN += ["--repeats", "1", "--target-interval", "0", "--timeout", "60"]
_ENDLESS = ["--steps", "100000"]


def _started(folder: Path, cache: Path, words: Sequence[str] = _ENDLESS) -> tuple[subprocess.Popen[str], Path]:
    """The command, and its attempt's folder once rank 1 has taken two steps."""
    job = subprocess.Popen(
        [*_RUN, *words], cwd=folder, env={**os.environ, "TUNEMARK_CACHE": str(cache)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and job.poll() is None:
        for path in folder.glob("runs/*/*/records.1.jsonl"):
            if path.read_text().count('"kind":"step"') >= 2:
                return job, path.parent
        time.sleep(0.02)
    job.kill()
    raise AssertionError(job.communicate()[1])


def _pids(attempt: Path) -> list[int]:
    return [json.loads((attempt / f"records.{rank}.jsonl").read_text().splitlines()[0])["pid"] for rank in range(2)]


def _row(job: subprocess.Popen[str], pids: list[int], codes: Sequence[int] = (4,)) -> dict[str, Any]:
    out, err = job.communicate(timeout=120)
    assert job.returncode in codes, err
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cwd").exists()]
    row: dict[str, Any] = json.loads(out)
    return row


def test_the_rank_that_was_killed_is_named(tmp_path: Path, tunemark_cache: Path) -> None:
    job, attempt = _started(tmp_path, tunemark_cache)
    pids = _pids(attempt)
    os.kill(pids[1], signal.SIGKILL)
    row = _row(job, pids)
    assert row["status"] == "killed"
    assert f"rank 1 (process {pids[1]}) was ended by SIGKILL" in row["each_attempt"][0]["evidence"]


@pytest.mark.full
def test_ranks_that_are_started_again_are_measured_alone_and_it_is_said(tmp_path: Path, tunemark_cache: Path) -> None:
    words = ["--steps", "12", "--max-restarts", "1"]
    job, attempt = _started(tmp_path, tunemark_cache, words)
    pids = _pids(attempt)
    os.kill(pids[1], signal.SIGKILL)
    row = _row(job, pids, codes=(0, 1, 3))
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


@pytest.mark.full
def test_a_full_disk_is_a_row_that_says_so(small_disk: Path, tunemark_cache: Path) -> None:
    job, attempt = _started(small_disk, tunemark_cache)
    pids = _pids(attempt)
    with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    row = _row(job, pids)
    assert row["status"] == "error"
    assert "are left on the disk" in row["each_attempt"][0]["evidence"]


@pytest.mark.full
def test_a_run_without_room_is_a_row_and_a_store_without_room_is_refused(
    small_disk: Path, tunemark_cache: Path
) -> None:
    words = ["--seed", "0,1", *_ENDLESS]
    job, _ = _started(small_disk, tunemark_cache, words)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    out, err = job.communicate(timeout=120)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (job.returncode, [row["status"] for row in rows]) == (4, ["error", "error"]), err
    assert "No space left" in rows[1]["each_attempt"][0]["evidence"]
    assert (rows[1]["stop_reason"], rows[1]["steps_measured"]) == ("store", 0)

    variables = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache)}
    refused = subprocess.run([*_RUN, *words], cwd=small_disk, env=variables, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "No space left" in refused.stderr
    assert "Traceback" not in refused.stderr + err
