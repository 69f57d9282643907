"""What Slurm is asked for, and how its answers are read."""

from __future__ import annotations

from pathlib import Path

from tunemark.plugin import Job
from tunemark_launchers.slurm import parse_job, script


def _job(**more: object) -> Job:
    values = {"environment": {}, "code": Path("/s/.code/x"), "folder": Path("/s/a b"), "python": "/p/python", **more}
    return Job(name="tunemark-1", processes=8, threads=2, **values)  # type: ignore[arg-type]  # of a test's choice


def test_each_node_has_one_agent_with_the_cores_of_its_ranks() -> None:
    text = script(_job(), 2, {"partition": "debug"})
    for line in ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--partition=debug", "--exclusive"):
        assert f"#SBATCH {line}\n" in text
    assert "gres" not in text


def test_a_job_of_gpus_asks_for_them_by_node() -> None:
    assert "#SBATCH --gres=gpu:4\n" in script(_job(gpus=8), 2, {})
    assert "#SBATCH --gres=gpu:h100:8\n" in script(_job(gpus=8), 1, {"gres": "gpu:h100:8"})


def test_fields_of_a_job_are_read_where_values_hold_blanks() -> None:
    found = parse_job("JobId=7 JobName=a JobState=PENDING Reason=Nodes required are DOWN Command=/x/y z Power=\n")
    assert (found["JobState"], found["Reason"]) == ("PENDING", "Nodes required are DOWN")
    assert found["Command"] == "/x/y z"
