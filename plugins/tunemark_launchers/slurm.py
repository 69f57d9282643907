"""The launcher `slurm`: a batch job for each attempt, whose one task on each node is an agent that starts the ranks.

Attempts of one shape that are started together are the tasks of one job array, which is one request to the controller.
A sweep keeps a few of them in the queue, in rounds, so that a run that fails is not repeated; jobs of several sizes
are several arrays, since all tasks of an array have the same size.

States are read from `scontrol`, and for a job that it has forgotten from `sacct`, where there is accounting.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.plugin import JobSpec, LaunchConfig, StartedJob
from tunemark_launchers.agents import GRACE_S, HostAgents, check_nodes, count_nodes, parse_numeric_options, write_job
from tunemark_worker.contract import code_variables, records_file_name
from tunemark_worker.host_agent import EXIT_UNAVAILABLE, EXIT_UNREADABLE
from tunemark_worker.linux_proc import read_text

# Seconds between two queries of the controller.
_POLL_S = 2.0
_COMMAND_TIMEOUT_S = 30.0
_DEFAULT_JOBS = 8
# The user's variables that every job gets; all others only by --export.
EXPORTED_VARIABLES = ("HOME", "USER", "PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "RESIZING", "SUSPENDED", "STOPPED")
_RUNNING = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT")
# The states of a job that was ended from outside.
_FAILURES = {
    "NODE_FAIL": ("killed", "node failed"),
    "BOOT_FAIL": ("killed", "node failed"),
    "OUT_OF_MEMORY": ("oom", "host memory"),
    "TIMEOUT": ("timeout", "slurm's time limit"),
    "DEADLINE": ("timeout", "slurm's deadline"),
    "PREEMPTED": ("killed", "preempted"),
    "CANCELLED": ("killed", "cancelled"),
}
# The file in a job's folder that holds its Slurm job id.
_JOB_ID_NAME = "slurm.id"
_SBATCH_OPTIONS = ("partition", "account", "qos", "constraint", "reservation", "time", "mem", "gres")

OPTIONS = {
    "nodes": "hosts of each job (1)",
    "jobs": f"jobs of a sweep in the queue at the same time ({_DEFAULT_JOBS})",
    "exclusive": "true or false: whether a job has its nodes to itself (true)",
    "partition": "as sbatch's",
    "account": "as sbatch's",
    "qos": "as sbatch's",
    "constraint": "as sbatch's",
    "reservation": "as sbatch's",
    "time": "minutes, as sbatch's",
    "mem": "of each node, as sbatch's",
    "gres": "of each node, as sbatch's (gpu:N where a job needs GPUs)",
}


class SlurmLauncher:
    """Submits jobs by the Slurm commands on PATH."""

    def __init__(self, options: Mapping[str, str], export: Sequence[str], say: Callable[[str], None]) -> None:
        self._options, self._export, self._say = options, tuple(export), say
        numbers = parse_numeric_options(options, ("nodes", "jobs"), "slurm")
        self._nodes, self.max_jobs = numbers.get("nodes", 1), numbers.get("jobs", _DEFAULT_JOBS)
        if options.get("exclusive", "true") not in ("true", "false"):
            raise BadExperiment(what=f"exclusive cannot be {options['exclusive']!r}", next="true or false")
        self._is_checked = False
        self._unsubmitted: list[SlurmJob] = []

    def check(self, launch: LaunchConfig, store: Path) -> None:
        check_nodes(launch.processes, count_nodes(launch.nodes, self._options, self._nodes, "slurm"), "slurm")
        if self._is_checked:
            return
        missing = [name for name in ("sbatch", "srun", "scontrol", "scancel") if shutil.which(name) is None]
        if missing:
            raise BadExperiment(
                what=f"{missing[0]} is not on PATH",
                why="the launcher slurm uses Slurm's own commands",
                next="run it on a host that submits to Slurm, or use --launcher local",
            )
        partition = self._options.get("partition")
        words = ["sinfo", "--noheader", "--format=%P %D %t", *([f"--partition={partition}"] if partition else [])]
        done = _run(words)
        if done.returncode or not done.stdout.strip():
            raise BadExperiment(
                what="Slurm does not answer" if done.returncode else f"Slurm has no partition {partition!r}",
                why=f"`{shlex.join(words)}`: {done.stderr.strip() or 'nothing'}",
                next="`sinfo` shows the partitions",
            )
        self._is_checked = True

    def start(self, job: JobSpec) -> StartedJob:
        nodes = count_nodes(job.nodes, self._options, self._nodes, "slurm")
        write_job(job, nodes, self._export)
        started = SlurmJob(job, nodes, self._say, self.submit)
        self._unsubmitted.append(started)
        return started

    def submit(self) -> None:
        """Submit the started jobs that are not submitted yet, those of one shape as one array."""
        waiting, self._unsubmitted = self._unsubmitted, []
        shapes: dict[str, list[SlurmJob]] = {}
        for started in waiting:
            shapes.setdefault(make_script([started.job], started.nodes, self._options, shape_only=True), []).append(
                started
            )
        for same_shape in shapes.values():
            jobs = [started.job for started in same_shape]
            text = make_script(jobs, same_shape[0].nodes, self._options)
            for job in jobs:
                (job.folder / "slurm.sh").write_text(text)
            path = jobs[0].folder / "slurm.sh"
            names = ",".join(dict.fromkeys([*EXPORTED_VARIABLES, *self._export]))
            done = _run(["sbatch", "--parsable", f"--export={names}", str(path)], cwd=jobs[0].folder)
            number = done.stdout.strip().partition(";")[0]
            for task, started in enumerate(same_shape):
                if done.returncode or not number.isdigit():
                    started.set_rejection(f"Slurm rejects the job: {(done.stderr or done.stdout).strip()[-500:]}")
                else:
                    started.set_job_id(number if len(same_shape) == 1 else f"{number}_{task}")

    def adopt(self, job: JobSpec, facts: Mapping[str, Any]) -> StartedJob | None:
        """The job that an earlier process of this command submitted, if it waits or runs, or has ended and every rank
        has written its end record."""
        number = read_text(str(job.folder / _JOB_ID_NAME)).strip() or facts.get("job_id") or _find_job_id(job)
        if not number:
            return None
        adopted = SlurmJob(job, count_nodes(job.nodes, self._options, self._nodes, "slurm"), self._say, self.submit)
        adopted.set_job_id(str(number))
        if adopted.exit_code() is None or _has_all_ends(job):
            return adopted
        return None

    def close(self) -> None:
        pass


class SlurmJob:
    """One batch job, or one task of an array; submitted when its exit code is first queried."""

    def __init__(self, job: JobSpec, nodes: int, say: Callable[[str], None], submit: Callable[[], None]) -> None:
        self.job, self.nodes = job, nodes
        self._say, self._submit = say, submit
        self._job_id = ""
        self._rejection = ""
        self._agents = HostAgents(job.folder, nodes)
        self._fields: dict[str, str] = {}
        self._polled_s = -_POLL_S
        self._reported_reason = ""
        self._is_silent = False

    def set_job_id(self, number: str) -> None:
        """Record the id under which Slurm accepted the job."""
        self._job_id = number
        (self.job.folder / _JOB_ID_NAME).write_text(number)

    def set_rejection(self, words: str) -> None:
        self._rejection = words

    def exit_code(self) -> int | None:
        if not self._job_id and not self._rejection:
            self._submit()
        if self._rejection:
            return EXIT_UNAVAILABLE
        code = self._agents.exit_code()
        if code is not None:
            return code
        state = self._state()
        if state in _WAITING or state in _RUNNING:
            return None
        own, _, number = self._fields.get("ExitCode", "1:0").partition(":")
        return -int(number) if number not in ("", "0") else int(own or 1)

    def is_waiting(self) -> bool:
        if not self._job_id:
            return not self._rejection
        is_waiting = self._state() in _WAITING
        reason = self._fields.get("Reason", "") if is_waiting else ""
        if reason not in ("", "None", self._reported_reason):
            self._reported_reason = reason
            self._say(f"Slurm's job {self._job_id} waits: {reason}")
        return is_waiting

    def interrupt(self) -> None:
        self._agents.write_order("term")
        if self._job_id and self._state() in _WAITING:
            _run(["scancel", self._job_id])

    def stacks(self, pids: Mapping[int, int]) -> str:
        return self._agents.stacks()

    def stop(self, pids: Mapping[int, int], *, graceful: bool) -> None:
        if not self._job_id:
            self._rejection = self._rejection or "ended before it was submitted to Slurm"
            return
        if graceful and self.exit_code() is None:
            self.interrupt()
            until_s = time.monotonic() + GRACE_S
            while self.exit_code() is None and time.monotonic() < until_s:
                time.sleep(0.2)
        if not self._agents.all_ended():
            # Where the controller has lost a node, the agent there still sees the folder.
            self._agents.write_order("kill")
            if self._agents.last_events("started"):
                self._agents.wait_for_end(5.0)
        if self._state(now=True) not in ("COMPLETED", "FAILED", *_FAILURES):
            # The agents' tasks end by themselves; only one that hangs is cancelled.
            until_s = time.monotonic() + (5.0 if self._agents.all_ended() else 0.0)
            while not self._is_silent and self._state(now=True) in _RUNNING and time.monotonic() < until_s:
                time.sleep(0.5)
            is_over = self._is_silent and self._agents.all_ended()
            if self._state() in (*_RUNNING, *_WAITING) and not is_over:
                _run(["scancel", self._job_id])

    def facts(self) -> Mapping[str, Any]:
        if self._rejection:
            return {"failure": self._rejection, "failure_status": "error", "failure_reason": "launcher"}
        found: dict[str, Any] = {**({"job_id": self._job_id} if self._job_id else {}), **self._agents.facts()}
        fields = self._fields
        if fields:
            found["state"] = fields.get("JobState")
            found["nodes"] = fields.get("NodeList")
            submitted, began = (_parse_time(fields.get(key, "")) for key in ("SubmitTime", "StartTime"))
            if submitted and began and fields.get("JobState") not in _WAITING:
                found["queue_s"] = max(0.0, began - submitted)
        if (state := fields.get("JobState", "")) in _FAILURES:
            status, reason = _FAILURES[state]
            words = f"Slurm's job {self._job_id} ended as {state}, nodes {fields.get('NodeList')}"
            found.update(failure=words, failure_status=status, failure_reason=reason)
        elif fields.get("ExitCode", "").startswith(f"{EXIT_UNREADABLE}:"):
            words = f"Slurm's node {fields.get('NodeList')} does not see {self.job.folder}: the store must be on "
            words += "a file system that every node mounts at the same path"
            found.update(failure=words, failure_status="error", failure_reason="no shared file system")
        return found

    def _state(self, *, now: bool = False) -> str:
        if now or time.monotonic() - self._polled_s >= _POLL_S:
            self._polled_s = time.monotonic()
            done = _run(["scontrol", "show", "job", "--oneliner", self._job_id])
            if done.returncode == 0:
                self._is_silent = False
                self._fields = parse_job_fields(done.stdout)
            elif "Invalid job id" in done.stderr:
                self._fields = _read_accounting(self._job_id) or {**self._fields, "JobState": "FORGOTTEN"}
            elif not self._is_silent:
                # The job goes on without its controller, and its agents say how it ends.
                self._is_silent = True
                words = done.stderr.strip() or "it does not answer"
                self._say(f"the state of Slurm's job {self._job_id} is unknown, and waited for: {words}")
        return self._fields.get("JobState", "PENDING")


def make_script(jobs: Sequence[JobSpec], nodes: int, options: Mapping[str, str], *, shape_only: bool = False) -> str:
    """The batch script of jobs of one shape, stored with each attempt; job N is task N of the array. It contains no
    value of an exported variable. shape_only: only what the jobs of one array must share."""
    first = jobs[0]
    cores = first.processes // nodes * first.threads
    requested = {
        "nodes": str(nodes),
        "ntasks": str(nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(cores),
        **{name: options[name] for name in _SBATCH_OPTIONS if name in options},
    }
    if first.gpus and "gres" not in options:
        requested["gres"] = f"gpu:{first.gpus // nodes}"
    if shape_only:
        return repr((requested, first.python, str(first.code)))
    requested["job-name"] = first.name
    requested["output"] = "/dev/null" if len(jobs) > 1 else str(first.folder / "slurm.log")
    if len(jobs) > 1:
        requested["array"] = f"0-{len(jobs) - 1}"
    flags = ["no-requeue", *(["exclusive"] if options.get("exclusive", "true") == "true" else [])]
    folders = " ".join(shlex.quote(str(job.folder)) for job in jobs)
    agent = f'exec {shlex.quote(first.python)} -m tunemark_worker.agent "$0" --node $SLURM_NODEID'
    seen = f'test -r "$0"/job.json || {{ echo $(hostname): "$0" is not there >&2; exit {EXIT_UNREADABLE}; }}'
    lines = ["#!/bin/bash", *(f"#SBATCH --{key}={value}" for key, value in requested.items())]
    lines += [f"#SBATCH --{flag}" for flag in flags]
    lines += [f"folders=({folders})", "folder=${folders[${SLURM_ARRAY_TASK_ID:-0}]}"]
    lines += [seen.replace('"$0"', '"$folder"')]
    if len(jobs) > 1:
        lines.append('exec > "$folder"/slurm.log 2>&1')
    lines += [f"export {name}={shlex.quote(value)}" for name, value in code_variables(str(first.code)).items()]
    srun = f"exec srun --cpus-per-task={cores} --kill-on-bad-exit=1"
    lines.append(f'{srun} bash -c {shlex.quote(f"{seen}; {agent}")} "$folder"')
    return "\n".join(lines) + "\n"


def parse_job_fields(text: str) -> dict[str, str]:
    """The fields of `scontrol show job --oneliner`: KEY=VALUE, where a value may contain blanks."""
    return {key: value.strip() for key, value in re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", text.strip())}


def _read_accounting(number: str) -> dict[str, str] | None:
    """The same fields from accounting, for a job that the controller has forgotten; None where it is not found."""
    if shutil.which("sacct") is None:
        return None
    names = {"State": "JobState", "ExitCode": "ExitCode", "Submit": "SubmitTime", "Start": "StartTime"}
    names["NodeList"] = "NodeList"
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={number}"]
    done = _run([*words, f"--format={','.join(names)}"])
    row = done.stdout.strip().split("|")
    if done.returncode or len(row) != len(names):
        return None
    found = dict(zip(names.values(), row, strict=True))
    found["JobState"] = found["JobState"].partition(" ")[0]  # "CANCELLED by 0"
    return found


def _find_job_id(job: JobSpec) -> str | None:
    """The id of a job whose command died between submitting and recording it, found by the job name in its script."""
    text = read_text(str(job.folder / "slurm.sh"))
    name = re.search(r"^#SBATCH --job-name=(\S+)$", text, re.MULTILINE)
    folders = re.search(r"^folders=\((.*)\)$", text, re.MULTILINE)
    if name is None or folders is None:
        return None
    queued = _run(["squeue", "--noheader", "--format=%F", f"--name={name[1]}"]).stdout.split()
    jobs = shlex.split(folders[1])
    if not queued or str(job.folder) not in jobs:
        return None
    return queued[0] if len(jobs) == 1 else f"{queued[0]}_{jobs.index(str(job.folder))}"


def _has_all_ends(job: JobSpec) -> bool:
    for rank in range(job.processes):
        path = job.folder / records_file_name(rank)
        if not path.exists() or b'"kind":"end"' not in path.read_bytes()[-4096:]:
            return False
    return True


def _parse_time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _run(words: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(words), 1, "", str(error))
