"""What Slurm is asked for, and how its answers are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunemark.errors import BadExperiment
from tunemark.plugin import Job, Launch
from tunemark_launchers.slurm import Slurm, parse_job, script


def _job(**more: object) -> Job:
    values = {"environment": {}, "code": Path("/s/.code/x"), "folder": Path("/s/a b"), "python": "/p/python", **more}
    return Job(name="tunemark-1", processes=8, threads=2, **values)  # type: ignore[arg-type]  # of a test's choice


def test_each_node_has_one_agent_with_the_cores_of_its_ranks() -> None:
    text = script([_job()], 2, {"partition": "debug"})
    for line in ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--partition=debug", "--exclusive"):
        assert f"#SBATCH {line}\n" in text
    assert "gres" not in text


def test_a_job_of_gpus_asks_for_them_by_node() -> None:
    assert "#SBATCH --gres=gpu:4\n" in script([_job(gpus=8)], 2, {})
    assert "#SBATCH --gres=gpu:h100:8\n" in script([_job(gpus=8)], 1, {"gres": "gpu:h100:8"})


def test_fields_of_a_job_are_read_where_values_hold_blanks() -> None:
    found = parse_job("JobId=7 JobName=a JobState=PENDING Reason=Nodes required are DOWN Command=/x/y z Power=\n")
    assert (found["JobState"], found["Reason"]) == ("PENDING", "Nodes required are DOWN")
    assert found["Command"] == "/x/y z"


def test_hosts_are_of_the_size_or_of_the_option_and_not_of_two_minds(tmp_path: Path) -> None:
    launch = Launch(processes=8, threads=1, nodes=2)
    with pytest.raises(BadExperiment, match="the size says 2 hosts, and the launcher 4"):
        Slurm({"nodes": "4"}, (), print).check(launch, tmp_path)
    with pytest.raises(BadExperiment, match="9 processes cannot be spread evenly over 2 hosts"):
        Slurm({}, (), print).check(Launch(processes=9, threads=1, nodes=2), tmp_path)


def test_jobs_of_one_shape_are_tasks_of_one_array() -> None:
    jobs = [_job(folder=Path(f"/s/{name}")) for name in ("a b", "c")]
    text = script(jobs, 2, {})
    assert "#SBATCH --array=0-1\n" in text
    assert "folders=('/s/a b' /s/c)\nfolder=${folders[${SLURM_ARRAY_TASK_ID:-0}]}\n" in text
    shapes = {script([job], 2, {}, shape_only=True) for job in (*jobs, _job(gpus=8))}
    assert len(shapes) == 2
