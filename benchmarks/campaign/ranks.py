"""Faults of a job's ranks, hosts and disk, injected at a random step into the second of three runs.

A fault is handled well if a row with the right status comes within the stated time and names what ended, no process of
the attempt is left then, earlier measurements are kept, and the next run is measured. Only the time to the row is
measured, so several processes may share a core.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from document import ROOT

from campaign.cases import NeverCame, NotHere, Outcome, Trial, add_case

STEPS = 24
# The runs of a sweep, by seed, their only difference: before the fault, with it, after it.
BEFORE, FAULTY, AFTER = range(3)
# Seconds that the supervisor gives ranks to end, plus a margin for it and the parent.
_GRACE_S = 20.0
# Seconds after the row within which killed processes must be gone.
_MOMENT_S = 5.0
# Seconds within which the row must come, plus --silence where the fault is a silence. `killed`, `memory`, `disk` and
# `restarted`: the supervisor gives the other ranks 10 s to end. `no room`: half a minute is waited for room. `network`
# and `hung`: the silence that --timeout allows, then stacks are asked for. `node`: SlurmdTimeout is 30, and Slurm
# looks. `command`: ranks look for it once a second, at a window's edge.
BOUNDS = {
    "killed": _GRACE_S, "hung": 15.0, "memory": _GRACE_S, "disk": _GRACE_S, "no room": 35.0, "network": 15.0,
    "node": 75.0, "command": 30.0, "restarted": _GRACE_S, "supervisor": 30.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """chance: picks rank and step. ranks: of each run. silence_s: the `--timeout` of faults that are a silence."""

    chance: Any
    ranks: int
    silence_s: int

    def step(self) -> int:
        return self.chance.randrange(2, 3 * STEPS // 4)

    def rank(self) -> int:
        return self.chance.randrange(self.ranks)

    @property
    def patience(self) -> list[str]:
        return ["--timeout", str(self.silence_s)]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault. status, evidence: of the run with the fault. seconds: from the fault to the row. left: processes left
    of the attempt five seconds later, and of the sweep at its end. kept: whether the run before is unchanged. after:
    status of the run after."""

    fault: str
    status: str
    evidence: str
    seconds: float
    left: int
    kept: bool
    after: str
    expected: tuple[str, ...]


class Sweep:
    """A running command that measures three runs in a folder. said: the lines of its standard error so far."""

    def __init__(
        self,
        folder: Path,
        *,
        ranks: int,
        words: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
        lasts_s: int | None = None,
    ) -> None:
        """within: a command prefix that runs it. lasts_s: each run's time budget in seconds instead of a number of
        steps."""
        self.folder, self.ranks = folder, ranks
        ends = ["--steps", str(STEPS), "--budget", "100000"] if lasts_s is None else ["--budget", str(lasts_s)]
        self.steps = STEPS if lasts_s is None else None
        command = [*within, sys.executable, "-m", "tunemark", "run", "--model", "mistral-tiny", "--strategy", "ddp"]
        command += ["--device", f"cpu:{ranks}", "--oversubscribe", "--sequence", "32", "--micro-batch", "1"]
        command += ["--seed", "0,1,2", "--optimizer", "sgd", "--warmup", "1", "--target-interval", "0", *ends]
        command += ["--repeats", "1", "--no-measure-peak", "--json", *words]
        self.process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(variables or {})}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._end_times_s: list[float] = []
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None, "it was asked for"
        for line in self.process.stderr:
            self.said.append(line)
            if ", ended by " in line:
                self._end_times_s.append(time.monotonic())

    def wait(self, is_so: Callable[[], Any], what: str, within_s: float = 600.0) -> Any:
        """Wait until `is_so` returns something true, and return it; NeverCame if the sweep ends or the time is up."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if found := is_so():
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise NeverCame(f"{what} never came: {''.join(self.said)[-1000:]}")

    def ended(self, number: int) -> float | None:
        """The time.monotonic() at which the sweep reported the end of this run, or None."""
        return self._end_times_s[number] if len(self._end_times_s) > number else None

    def attempt(self, seed: int) -> Path | None:
        for path in self.folder.glob("runs/*/*/plan.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(path.read_text())["seed"] == seed:
                    return path.parent
        return None

    def at_step(self, seed: int, step: int) -> Path:
        """Wait until every rank has taken `step` steps; returns the attempt's folder."""

        def come() -> Path | None:
            attempt = self.attempt(seed)
            if attempt is None:
                return None
            files = [attempt / f"records.{rank}.jsonl" for rank in range(self.ranks)]
            enough = all(path.exists() and path.read_bytes().count(b'"kind":"step"') >= step for path in files)
            return attempt if enough else None

        found: Path = self.wait(come, f"step {step} of run {seed}")
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Wait for the command's end; returns its results."""
        assert self.process.stdout is not None, "it was asked for"
        out = self.process.stdout.read()
        self.process.wait()
        self._reader.join(10)
        return [json.loads(line) for line in out.splitlines()]


def pids(attempt: Path, ranks: int) -> list[int]:
    """The process ids of an attempt's ranks, from their first records."""
    firsts = [(attempt / f"records.{rank}.jsonl").read_text().split("\n", 1)[0] for rank in range(ranks)]
    return [int(json.loads(line)["pid"]) for line in firsts]


def left(folder: Path) -> list[int]:
    """Ids of other processes whose working directory is in the folder, as that of every process of an attempt is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.resolve().is_relative_to(folder.resolve()) and path.parent.name != str(os.getpid()):
                found.append(int(path.parent.name))
    return found


def watched(
    fault: str,
    sweep: Sweep,
    plant: Callable[[Path], None],
    *,
    expected: Sequence[str],
    step: int,
    mend: Callable[[], None] = lambda: None,
    until: Callable[[Path], bool] | None = None,
) -> Row:
    """Inject a fault into the second run and report what happened. mend: makes the next run possible. until: the event
    to time instead of the row, for a run that goes on."""
    attempt = sweep.at_step(FAULTY, step)
    began_s = time.monotonic()
    plant(attempt)
    if until is not None:
        goes_on = until
        sweep.wait(lambda: goes_on(attempt), f"what follows {fault}")
        seconds = time.monotonic() - began_s
        sweep.wait(lambda: sweep.ended(FAULTY), f"the row of {fault}")
    else:
        seconds = sweep.wait(lambda: sweep.ended(FAULTY), f"the row of {fault}") - began_s
    # Killed processes take a moment to disappear.
    until_s = time.monotonic() + _MOMENT_S
    while (at_row := len(left(attempt))) and time.monotonic() < until_s:
        time.sleep(0.02)
    mend()
    rows = sweep.rows()
    faulty = rows[FAULTY]
    evidence = faulty["each_attempt"][-1]["evidence"]
    if faulty["status"] == "ok":
        evidence = "; ".join(f["message"] for f in faulty["findings"] if f["rule"] == "restarted")
    steps = rows[BEFORE]["steps_measured"]
    kept = rows[BEFORE]["status"] == "ok" and steps > 0 and sweep.steps in (steps, None)
    return Row(
        fault=fault, status=faulty["status"], evidence=evidence, seconds=seconds, left=at_row + len(left(sweep.folder)),
        kept=kept, after=rows[AFTER]["status"], expected=tuple(expected),
    )  # fmt: skip


def killed(folder: Path, asked: Asked) -> Row:
    rank, step = asked.rank(), asked.step()

    def plant(attempt: Path) -> None:
        os.kill(pids(attempt, asked.ranks)[rank], signal.SIGKILL)

    return watched("killed", Sweep(folder, ranks=asked.ranks), plant, expected=["killed"], step=step)


def hung(folder: Path, asked: Asked) -> Row:
    rank, step = asked.rank(), asked.step()
    shown: list[Path] = []

    def plant(attempt: Path) -> None:
        shown.append(attempt)
        os.kill(pids(attempt, asked.ranks)[rank], signal.SIGSTOP)

    row = watched(
        "hung", Sweep(folder, ranks=asked.ranks, words=asked.patience), plant, expected=["timeout"], step=step
    )
    files = [shown[0] / f"stacks.{each}.txt" for each in range(asked.ranks)]
    if not all(path.exists() and 'File "' in path.read_text() for path in files):
        return replace(row, expected=(), evidence=f"NO STACKS of some rank; {row.evidence}")
    return row


def memory(folder: Path, asked: Asked) -> Row:
    """A rank's address space is limited to just above its size before the first step allocates its memory."""
    if not hasattr(resource, "prlimit"):
        raise NotHere("no prlimit on this system")
    rank = asked.rank()
    # Logits of 2 x 256 tokens take 64 MiB, more than the limit leaves.
    sweep = Sweep(folder, ranks=asked.ranks, words=["--sequence", "256", "--micro-batch", "2"])

    def built() -> Path | None:
        attempt = sweep.attempt(FAULTY)
        path = attempt / f"records.{rank}.jsonl" if attempt else None
        return attempt if path and path.exists() and b'"name":"built"' in path.read_bytes() else None

    attempt = sweep.wait(built, "a rank that has built its model")

    def plant(_: Path) -> None:
        pid = pids_of(attempt)[rank]
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        bound = pages * os.sysconf("SC_PAGE_SIZE") + (24 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (bound, bound))

    def pids_of(attempt: Path) -> dict[int, int]:
        found = {}
        for path in attempt.glob("records.*.jsonl"):
            found[int(path.name.split(".")[1])] = int(json.loads(path.read_text().split("\n", 1)[0])["pid"])
        return found

    return watched("memory", sweep, plant, expected=["oom"], step=0)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A separate file system of 6 MB for the store."""
    disk = folder / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mount.returncode:
        raise NotHere(f"a mount is not permitted: {mount.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "ab", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))


def disk(folder: Path, asked: Asked) -> Row:
    with small_disk(folder) as small:
        return watched(
            "disk", Sweep(small, ranks=asked.ranks), lambda attempt: fill(small), expected=["error"],
            step=asked.step(), mend=(small / "filler").unlink,
        )  # fmt: skip


def no_room(folder: Path, asked: Asked) -> Row:
    """The disk stays full, so that the next run cannot start. Then it is freed and the same command runs again: it must
    measure what failed, and not what was finished."""
    with small_disk(folder) as small:
        sweep = Sweep(small, ranks=asked.ranks)
        sweep.at_step(FAULTY, asked.step())
        fill(small)
        began_s = sweep.wait(lambda: sweep.ended(FAULTY), "the first row of a full disk")
        seconds = sweep.wait(lambda: sweep.ended(AFTER), "the row of a run without room") - began_s
        at_row = len([pid for pid in left(small) if pid != sweep.process.pid])
        rows = sweep.rows()
        (small / "filler").unlink()
        again = Sweep(small, ranks=asked.ranks).rows()
        same = again[BEFORE] == rows[BEFORE] and rows[BEFORE]["status"] == "ok"
        return Row(
            fault="no room", status=rows[AFTER]["status"], evidence=rows[AFTER]["each_attempt"][-1]["evidence"],
            seconds=seconds, left=at_row + len(left(small)), kept=same, after=again[AFTER]["status"],
            expected=("error",),
        )  # fmt: skip


def network(folder: Path, asked: Asked) -> Row:
    """The sweep has its own network namespace, whose only interface goes down."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True) if not missing else None
    if probe is None or probe.returncode:
        raise NotHere(f"no network of its own: {missing[0] + ' is missing' if missing else probe and probe.stderr}")
    within = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    sweep = Sweep(folder, ranks=asked.ranks, words=asked.patience, within=within)

    def link(state: str) -> None:
        words = ["nsenter", "--target", str(sweep.process.pid), "--net", "ip", "link", "set", "lo", state]
        subprocess.run(words, check=True)

    return watched(
        "network", sweep, lambda attempt: link("down"), expected=["timeout", "error"],
        step=asked.step(), mend=lambda: link("up"),
    )  # fmt: skip


@contextmanager
def slurm_of_two_nodes(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A real Slurm of this host: the folder of a sweep, and the variables under which Slurm's commands find it."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        raise NotHere(f"needs root and Debian's slurm-wlm and munge: {missing[0] + ' is missing' if missing else ''}")
    if subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).returncode == 0:
        raise NotHere("another Slurm runs on this host")
    # Slurm's own processes run in a separate folder, so that `left` does not count them.
    script, conf, place = str(ROOT / "tests/slurm.sh"), folder / "slurm", folder / "sweep"
    conf.mkdir()
    place.mkdir()
    try:
        subprocess.run(["sh", script, "start", str(conf)], check=True)
        yield place, {"SLURM_CONF": str(conf / "slurm.conf")}
    finally:
        subprocess.run(["sh", script, "stop", str(conf)], check=True)


def node(folder: Path, asked: Asked) -> Row:
    """A job runs on two nodes of a real Slurm, and one node's slurmd dies; Slurm has to notice."""
    last = str((os.cpu_count() or 1) - 1)
    with slurm_of_two_nodes(folder) as (place, variables):
        # The run continues until Slurm notices, so it must last longer than that.
        words = ["--launcher", "slurm:nodes=2:jobs=1", "--timeout", "120"]
        sweep = Sweep(place, ranks=2, variables=variables, words=words, lasts_s=int(BOUNDS["node"]) + 15)

        def plant(attempt: Path) -> None:
            os.kill(int((folder / "slurm" / "slurmd.n2.pid").read_text()), signal.SIGKILL)

        def mend() -> None:
            subprocess.run(["taskset", "-c", last, "slurmd", "-N", "n2"], env={**os.environ, **variables}, check=True)

        return watched("node", sweep, plant, expected=["killed"], step=asked.step(), mend=mend)


def command(folder: Path, asked: Asked) -> Row:
    """The command itself is killed and gives no row. Its processes must end, and the same command must continue."""
    from tunemark.results import Store  # heavy, and needed here alone

    sweep = Sweep(folder, ranks=asked.ranks)
    attempt = sweep.at_step(FAULTY, asked.step())
    before = sweep.attempt(BEFORE)
    began_s = time.monotonic()
    sweep.process.kill()
    sweep.process.wait()
    while left(attempt) and time.monotonic() - began_s < BOUNDS["command"]:
        time.sleep(0.02)
    seconds, remaining = time.monotonic() - began_s, len(left(attempt))
    rows = Sweep(folder, ranks=asked.ranks).rows()
    kept = [each["name"] for each in rows[BEFORE]["each_attempt"]] == [before.name if before else ""]
    # The next command begins a new series; the store still has the interrupted attempt.
    every = [each for result in Store(folder / "runs").results(every_series=True) for each in result.each_attempt]
    (cut,) = [each for each in every if each.name == attempt.name]
    return Row(
        fault="command", status=cut.status, evidence=cut.evidence, seconds=seconds,
        left=remaining + len(left(folder)), kept=kept and rows[BEFORE]["status"] == "ok",
        after="ok" if {rows[FAULTY]["status"], rows[AFTER]["status"]} == {"ok"} else "not ok", expected=("killed",),
    )  # fmt: skip


def restarted(folder: Path, asked: Asked) -> Row:
    """The supervisor may start the ranks again: the run must then be ok, with a finding about the restart."""
    rank, step = asked.chance.randrange(2), asked.step()

    def plant(attempt: Path) -> None:
        os.kill(pids(attempt, 2)[rank], signal.SIGKILL)

    def is_again(attempt: Path) -> bool:
        return all((attempt / f"records.{each}.life1.jsonl").exists() for each in range(2))

    sweep = Sweep(folder, ranks=2, words=["--max-restarts", "1"])
    return watched("restarted", sweep, plant, expected=["ok"], step=step, until=is_again)


def supervisor(folder: Path, asked: Asked) -> Row:
    """The process that started the ranks is killed."""

    def plant(attempt: Path) -> None:
        (first, *_) = pids(attempt, asked.ranks)
        parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)

    sweep = Sweep(folder, ranks=asked.ranks)
    return watched("supervisor", sweep, plant, expected=["killed", "error"], step=asked.step())


def add_rank_case(
    name: str,
    what: str,
    inject: Callable[[Path, Asked], Row],
    words: str = "",
    ranks: int | None = None,
    after: str = "ok",
) -> None:
    """words: in the evidence of a good row. after: the status of the run that follows."""

    def run(trial: Trial) -> Outcome:
        row = inject(trial.folder, Asked(chance=trial.chance, ranks=ranks or trial.ranks, silence_s=trial.silence_s))
        bound_s = BOUNDS[row.fault] + (trial.silence_s if row.fault in ("hung", "network") else 0)
        evidence = " ".join(row.evidence.split()).replace(str(trial.folder), "...")
        problems = [] if row.status in row.expected else [f"status {row.status}"]
        problems += [] if row.seconds <= bound_s else [f"later than {bound_s:.0f} s"]
        problems += [f"{row.left} processes are left"] if row.left else []
        problems += [] if row.kept else ["the run before is not kept"]
        problems += [] if row.after == after else [f"the next run is {row.after}"]
        problems += [] if words in evidence else [f"{words!r} is not in the evidence"]
        seen = f"{row.status} after {row.seconds:.1f} s (at most {bound_s:.0f}): {evidence[:200]}"
        return Outcome(seen=seen, problems=tuple(problems))

    add_case(f"ranks-{name}", "ranks and hosts", what, run, is_random=True)


add_rank_case("killed", "SIGKILL of one rank", killed, "was ended by SIGKILL")
add_rank_case("hung", "SIGSTOP of one rank", hung, "was stopped")
add_rank_case("memory", "one rank gets no more memory", memory, "allocate")
add_rank_case("disk", "the disk is full while a run is measured", disk, "left on the disk")
add_rank_case("no-room", "the disk is full before a run is started", no_room, "No space left")
add_rank_case("network", "the network between the ranks is gone", network)
add_rank_case("node", "slurmd of one of two nodes is dead", node, ranks=2)
add_rank_case("command", "SIGKILL of the command itself", command)
add_rank_case("restarted", "SIGKILL of one rank, `--max-restarts 1`", restarted, "started again", ranks=2)
add_rank_case("supervisor", "SIGKILL of the ranks' supervisor", supervisor)
