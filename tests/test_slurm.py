"""The launcher `slurm` against a real Slurm of two nodes on this host, which tests/slurm.sh starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_RUN = [sys.executable, "-m", "tunemark", "run", "--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2"]
_RUN += ["--sequence", "32", "--micro-batch", "2", "--no-calibrate", "--warmup", "2", "--repeats", "1", "--json"]
_RUN += ["--target-interval", "0", "--launcher", "slurm:nodes=2", "--timeout", "60"]
_ENDLESS = ["--steps", "100000"]

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, tunemark_cache: Path) -> Iterator[dict[str, str]]:
    """Variables under which Slurm's commands find it."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge; {missing[0] if missing else 'root'} is missing")
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run(["sh", str(_HERE / "slurm.sh"), "start", str(folder)], capture_output=True, text=True)
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "TUNEMARK_CACHE": str(tunemark_cache)}
    subprocess.run(["sh", str(_HERE / "slurm.sh"), "stop", str(folder)], check=True)


def _start(folder: Path, variables: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_RUN, *words], cwd=folder, env=dict(variables), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _steps(folder: Path, job: subprocess.Popen[str], count: int) -> Path:
    """The attempt's folder, once rank 0 has taken so many steps."""
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and job.poll() is None:
        for path in folder.glob("runs/*/*/records.0.jsonl"):
            if path.read_text().count('"kind":"step"') >= count:
                return path.parent
        time.sleep(0.05)
    job.kill()
    raise AssertionError(job.communicate()[1])


def _row(job: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = job.communicate(timeout=150)
    assert "Traceback" not in err, err
    (line,) = out.splitlines() or [err]
    row: dict[str, Any] = json.loads(line)
    return row


def _left(folder: Path) -> list[str]:
    """Processes that work for attempts below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TUNEMARK_AGENT={folder}" in path.read_text(errors="replace"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_two_nodes_train_as_a_gang_and_queueing_is_in_no_rate(slurm: dict[str, str], tmp_path: Path) -> None:
    variables = {**slurm, "SECRET_OF_MINE": "do-not-write-me"}
    row = _row(_start(tmp_path, variables, "--steps", "8", "--export", "SECRET_OF_MINE"))
    assert (row["status"], row["steps_measured"]) == ("ok", 8)
    launcher = row["environment"]["launcher"]
    assert launcher["name"] == "slurm"
    assert len(launcher["hosts"]) == 2
    assert row["queue_s"] >= 0
    assert "launched" not in row["setup_s"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"do-not-write-me" not in path.read_bytes(), path


def test_a_job_outlives_its_command_and_is_taken_up_by_the_next(slurm: dict[str, str], tmp_path: Path) -> None:
    words = ["--steps", "60"]
    job = _start(tmp_path, slurm, *words)
    attempt = _steps(tmp_path, job, 2)
    job.kill()
    job.communicate()
    row = _row(_start(tmp_path, slurm, *words))
    assert (row["status"], row["attempts"], row["steps_measured"]) == ("ok", 1, 60)
    assert [each["name"] for each in row["each_attempt"]] == [attempt.name]


def test_runs_of_one_shape_are_tasks_of_one_array(slurm: dict[str, str], tmp_path: Path) -> None:
    words = ["--device", "cpu:1", "--strategy", "none", "--seed", "0,1", "--launcher", "slurm:exclusive=false"]
    out, err = _start(tmp_path, slurm, *words, "--steps", "6").communicate(timeout=150)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"], err
    number = rows[0]["environment"]["launcher"]["job_id"].partition("_")[0]
    assert [row["environment"]["launcher"]["job_id"] for row in rows] == [f"{number}_0", f"{number}_1"]


def test_an_interrupt_cancels_the_job_and_leaves_no_process(slurm: dict[str, str], tmp_path: Path) -> None:
    job = _start(tmp_path, slurm, *_ENDLESS)
    _steps(tmp_path, job, 2)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=90)
    assert job.returncode == 130, err
    assert not _left(tmp_path)
    queue = subprocess.run(["squeue", "--noheader", "--states=PD,R"], env=slurm, capture_output=True, text=True)
    assert queue.stdout == ""


def test_a_rank_that_is_stopped_is_found_and_its_stacks_are_kept(slurm: dict[str, str], tmp_path: Path) -> None:
    job = _start(tmp_path, slurm, *_ENDLESS, "--timeout", "25")
    attempt = _steps(tmp_path, job, 2)
    os.kill(json.loads((attempt / "records.1.jsonl").read_text().splitlines()[0])["pid"], signal.SIGSTOP)
    row = _row(job)
    assert row["status"] == "timeout"
    assert "rank 1 was stopped" in row["each_attempt"][0]["evidence"]
    assert "File" in (attempt / "stacks.1.txt").read_text()
    assert not _left(tmp_path)


def test_a_node_that_is_gone_is_a_row_and_leaves_no_process(slurm: dict[str, str], tmp_path: Path) -> None:
    job = _start(tmp_path, slurm, *_ENDLESS)
    _steps(tmp_path, job, 2)
    conf = Path(slurm["SLURM_CONF"]).parent
    os.kill(int((conf / "slurmd.n2.pid").read_text()), signal.SIGKILL)
    down = ["scontrol", "update", "nodename=n2", "state=down", "reason=test"]
    subprocess.run(down, env=slurm, check=True)
    began_s = time.monotonic()
    row = _row(job)
    assert time.monotonic() - began_s < 60
    assert row["status"] == "killed"
    assert "NODE_FAIL" in row["each_attempt"][0]["evidence"]
    assert not _left(tmp_path)
