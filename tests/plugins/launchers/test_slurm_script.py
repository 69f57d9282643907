"""What Slurm is asked for, and how its answers are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec, LaunchConfig
from tunemark_launchers.slurm import SlurmJob, SlurmLauncher, make_script, parse_job_fields


def _job(**more: object) -> JobSpec:
    values = {"environment": {}, "code": Path("/s/.code/x"), "folder": Path("/s/a b"), "python": "/p/python", **more}
    return JobSpec(name="tunemark-1", processes=8, threads=2, **values)  # type: ignore[arg-type]  # of a test's choice


def test_each_node_has_one_agent_with_the_cores_of_its_ranks() -> None:
    text = make_script([_job()], 2, {"partition": "debug"})
    for line in ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--partition=debug", "--exclusive"):
        assert f"#SBATCH {line}\n" in text
    assert "gres" not in text


def test_a_job_of_gpus_asks_for_them_by_node() -> None:
    assert "#SBATCH --gres=gpu:4\n" in make_script([_job(gpus=8)], 2, {})
    assert "#SBATCH --gres=gpu:h100:8\n" in make_script([_job(gpus=8)], 1, {"gres": "gpu:h100:8"})


def test_fields_of_a_job_are_read_where_values_hold_blanks() -> None:
    found = parse_job_fields(
        "JobId=7 JobName=a JobState=PENDING Reason=Nodes required are DOWN Command=/x/y z Power=\n"
    )
    assert (found["JobState"], found["Reason"]) == ("PENDING", "Nodes required are DOWN")
    assert found["Command"] == "/x/y z"


def test_hosts_are_of_the_size_or_of_the_option_and_not_of_two_minds(tmp_path: Path) -> None:
    launch = LaunchConfig(processes=8, threads=1, nodes=2)
    with pytest.raises(BadExperiment, match="the size says 2 hosts, and the launcher 4"):
        SlurmLauncher({"nodes": "4"}, (), print).check(launch, tmp_path)
    with pytest.raises(BadExperiment, match="9 processes cannot be spread evenly over 2 hosts"):
        SlurmLauncher({}, (), print).check(LaunchConfig(processes=9, threads=1, nodes=2), tmp_path)


def test_jobs_of_one_shape_are_tasks_of_one_array() -> None:
    jobs = [_job(folder=Path(f"/s/{name}")) for name in ("a b", "c")]
    text = make_script(jobs, 2, {})
    assert "#SBATCH --array=0-1\n" in text
    assert "folders=('/s/a b' /s/c)\nfolder=${folders[${SLURM_ARRAY_TASK_ID:-0}]}\n" in text
    shapes = {make_script([job], 2, {}, shape_only=True) for job in (*jobs, _job(gpus=8))}
    assert len(shapes) == 2


@pytest.mark.parametrize(("answer", "is_waited_for"), [
    ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True),
    ("slurm_load_jobs error: Invalid job id specified", False),
])  # fmt: skip
def test_a_job_goes_on_without_its_controller_and_not_where_that_has_forgotten_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_waited_for: bool
) -> None:
    for name in ("scontrol", "sacct"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said: list[str] = []
    started = SlurmJob(_job(folder=tmp_path), 2, said.append, lambda: None)
    started.set_job_id("7")
    assert (started.exit_code() is None) == is_waited_for
    assert ["".join(said).startswith("the state of Slurm's job 7 is unknown, and waited for: ")] == [is_waited_for]
