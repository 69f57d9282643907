"""The launcher `slurm` against a real Slurm of two nodes on this host, which tests/slurm.sh starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parents[1]
_RUN = ["--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2"]
_RUN += ["--sequence", "32", "--micro-batch", "2", "--no-measure-peak", "--warmup", "2", "--repeats", "1", "--json"]
_RUN += ["--target-interval", "0", "--launcher", "slurm:nodes=2", "--timeout", "60"]
_ENDLESS = ["--steps", "100000", "--budget", "100000"]

Start = Callable[..., Any]

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables under which Slurm's commands find it."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge; {missing[0] if missing else 'root'} is missing")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        done = subprocess.run(["sh", str(_HERE / "slurm.sh"), "start", str(folder)], capture_output=True, text=True)
        logs = "".join(path.read_text() for path in folder.glob("*.log"))
        assert done.returncode == 0, done.stderr + logs
        yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run(["sh", str(_HERE / "slurm.sh"), "stop", str(folder)], check=True)


def test_two_nodes_train_as_a_gang_and_queueing_is_in_no_rate(
    slurm: dict[str, str], start: Start, tmp_path: Path
) -> None:
    variables = {**slurm, "SECRET_OF_MINE": "do-not-write-me"}
    row = start(*_RUN, "--steps", "8", "--export", "SECRET_OF_MINE", variables=variables).row()
    assert (row["status"], row["steps_measured"]) == ("ok", 8)
    launcher = row["environment"]["launcher"]
    assert launcher["name"] == "slurm"
    assert len(launcher["hosts"]) == 2
    assert row["queue_s"] >= 0
    assert "launched" not in row["setup_s"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"do-not-write-me" not in path.read_bytes(), path


def test_a_job_outlives_its_command_and_is_taken_up_by_the_next(slurm: dict[str, str], start: Start) -> None:
    words = [*_RUN, "--steps", "60"]
    command = start(*words, variables=slurm)
    attempt = command.attempt(2)
    command.job.kill()
    command.job.wait()
    row = start(*words, variables=slurm).row()
    assert (row["status"], row["attempts"], row["steps_measured"]) == ("ok", 1, 60)
    assert [each["name"] for each in row["each_attempt"]] == [attempt.name]


def test_runs_of_one_shape_are_tasks_of_one_array(slurm: dict[str, str], start: Start) -> None:
    words = ["--device", "cpu:1", "--strategy", "none", "--seed", "0,1", "--launcher", "slurm:exclusive=false"]
    command = start(*_RUN, *words, "--steps", "6", variables=slurm)
    rows = command.rows()
    assert [row["status"] for row in rows] == ["ok", "ok"], command.said
    number = rows[0]["environment"]["launcher"]["job_id"].partition("_")[0]
    assert [row["environment"]["launcher"]["job_id"] for row in rows] == [f"{number}_0", f"{number}_1"]


def test_an_interrupt_cancels_the_job_and_leaves_no_process(slurm: dict[str, str], start: Start) -> None:
    command = start(*_RUN, *_ENDLESS, variables=slurm)
    command.attempt(2)
    command.job.send_signal(signal.SIGTERM)
    assert command.ended() == 130, command.said
    assert not command.left()
    queue = subprocess.run(["squeue", "--noheader", "--states=PD,R"], env=slurm, capture_output=True, text=True)
    assert queue.stdout == ""


def test_a_rank_that_is_stopped_is_found_and_its_stacks_are_kept(slurm: dict[str, str], start: Start) -> None:
    command = start(*_RUN, *_ENDLESS, "--timeout", "25", variables=slurm)
    attempt = command.attempt(2)
    os.kill(json.loads((attempt / "records.1.jsonl").read_text().splitlines()[0])["pid"], signal.SIGSTOP)
    row = command.row()
    assert row["status"] == "timeout"
    assert "rank 1 was stopped" in row["each_attempt"][0]["evidence"]
    assert "File" in (attempt / "stacks.1.txt").read_text()
    assert not command.left()


def test_a_node_that_is_gone_is_a_row_and_leaves_no_process(slurm: dict[str, str], start: Start) -> None:
    command = start(*_RUN, *_ENDLESS, variables=slurm)
    command.attempt(2)
    conf = Path(slurm["SLURM_CONF"]).parent
    os.kill(int((conf / "slurmd.n2.pid").read_text()), signal.SIGKILL)
    down = ["scontrol", "update", "nodename=n2", "state=down", "reason=test"]
    subprocess.run(down, env=slurm, check=True)
    # Slurm is told, so nothing is waited for but the other ranks' end.
    row = command.row(120)
    assert row["status"] == "killed"
    assert "NODE_FAIL" in row["each_attempt"][0]["evidence"]
    assert not command.left()
