"""What a plan's step does, counted by stepping the real model without data: the second engine beside `analytic`.

Each rank that differs from the others is stepped in a process of its own (`tunemark_worker.simulation`), by the
worker's own code, strategies and optimizer. Times are not found so; FLOPs, communicated bytes and memory are exact as
far as torch's operators show them. Results are kept under the hash of all that they depend on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from tunemark.cache import cache_folder
from tunemark.errors import TunemarkError
from tunemark.experiment.plan import Plan
from tunemark.plugin.descriptors import Axis
from tunemark.predict.prediction import Bytes
from tunemark_worker.contract import Assignment, TokenFile, split_runtime

# For one rank. A step of Mistral 7B on 1,024 ranks takes about half a minute, another model's may be ten times as long.
_TIMEOUT_S = 900.0
_NO_TOKENS = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
# Of a pipeline's stages, those that are looked at: each of few, else the first two, a middle one and the last.
_ALL_STAGES = 4


class NoSimulation(TunemarkError):  # noqa: N818  # as all of ours, it says what is the case
    """A plan whose step could not be simulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """Of one rank in a step. payload_bytes: of what is whole, gathered or before a scatter. ranks: of the group."""

    kind: str
    payload_bytes: int
    ranks: tuple[int, ...]
    count: int

    @property
    def sent_bytes(self) -> float:
        """What the rank sends, all times together, by rings: (n - 1)/n of the payload, twice that to reduce to all
        (Thakur, Rabenseifner and Gropp 2005, section 4). What is received from a neighbour is not sent."""
        n = len(self.ranks)
        if self.kind == "receive" or n < 2:
            return 0.0
        share = {"send": 1.0, "broadcast": 1.0, "all_reduce": 2.0 * (n - 1) / n}.get(self.kind, (n - 1) / n)
        return self.count * share * self.payload_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RankStep:
    """One rank's step. flops: by operator, of matrix multiplications, what is computed again included.
    bytes: held by tensors when most is held. held: the same by category, operator and phase of its making, the largest.
    peak_phase, peak_operator: where in the step that is."""

    rank: int
    flops: Mapping[str, float]
    collectives: tuple[Collective, ...]
    bytes: Bytes
    held: Mapping[str, int]
    peak_phase: str
    peak_operator: str
    operators: int

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())

    @property
    def sent_bytes(self) -> float:
        return sum(each.sent_bytes for each in self.collectives)


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """A plan's ranks, of each kind one. cached: it was found before."""

    ranks: tuple[RankStep, ...]
    cached: bool = False

    @property
    def flops(self) -> float:
        """Of the rank that has most to compute, in a step."""
        return max(rank.total_flops for rank in self.ranks)

    @property
    def sent_bytes(self) -> float:
        """Of the rank that sends most, in a step."""
        return max(rank.sent_bytes for rank in self.ranks)

    @property
    def bytes(self) -> Bytes:
        """Of the rank that holds most, when it does."""
        return max((rank.bytes for rank in self.ranks), key=lambda held: held.total)


def simulate(plan: Plan, *, cache: Path | None = None) -> Simulation:
    """Step each kind of a plan's ranks once.

    cache: a folder; by default $TUNEMARK_CACHE, or `tunemark` in $XDG_CACHE_HOME or in ~/.cache. NoSimulation says
    what a step ended with.
    """
    (found,) = simulate_all([plan], cache=cache)
    if isinstance(found, NoSimulation):
        raise found
    return found


def simulate_all(plans: Sequence[Plan], *, cache: Path | None = None) -> list[Simulation | NoSimulation]:
    """`simulate` for many plans, one after another, which saves the import of torch for all but the first."""
    folder = (cache or cache_folder()).absolute() / "simulations"
    assignments = [plan.assignment(_NO_TOKENS, "simulation", calibrate=False) for plan in plans]
    kept = [folder / f"{_key(assignment)}.json" for assignment in assignments]
    known = [path.exists() for path in kept]
    jobs = [
        (assignment, kinds_of_ranks(plan.axes))
        for plan, assignment, is_known in zip(plans, assignments, known, strict=True)
        if not is_known
    ]
    rows = iter(_run(jobs) if jobs else ())
    found: list[Simulation | NoSimulation] = []
    for plan, path, is_known in zip(plans, kept, known, strict=True):
        if is_known:
            ranks = json.loads(path.read_text(encoding="utf-8"))
        else:
            ranks = next(rows)
            wrong = next((row["error"] for row in ranks if "error" in row), None)
            if wrong is not None:
                found.append(
                    NoSimulation(
                        what=f"strategy {plan.spec.strategy!r} of {plan.launch.processes} processes was not simulated",
                        why=wrong,
                        next="the analytic engine needs no simulation",
                    )
                )
                continue
            folder.mkdir(parents=True, exist_ok=True)
            growing = folder / f".{path.name}.{os.getpid()}"
            growing.write_text(json.dumps(ranks), encoding="utf-8")
            growing.replace(path)
        found.append(Simulation(ranks=tuple(_rank(row) for row in ranks), cached=is_known))
    return found


def kinds_of_ranks(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Ranks that stand for all others. Those that share a stage do the same; the first of each shard group holds as
    much as any."""
    stride = 1
    for axis in reversed(axes):
        if axis.strategy == "pp":
            stages = range(axis.degree)
            if axis.degree > _ALL_STAGES:
                return tuple(n * stride for n in (0, 1, axis.degree // 2, axis.degree - 1))
            return tuple(n * stride for n in stages)
        stride *= axis.degree
    return (0,)


def _run(jobs: Sequence[tuple[Assignment, Sequence[int]]]) -> list[list[dict[str, Any]]]:
    """What the worker says of each rank of each assignment; a row with `error` where it failed."""
    with tempfile.TemporaryDirectory(prefix="tunemark-simulation-") as folder:
        words: list[str | Path] = []
        found: list[list[Path]] = []
        for number, (assignment, ranks) in enumerate(jobs):
            told = Path(folder, f"{number}.plan.json")
            told.write_text(assignment.to_json(), encoding="utf-8")
            found.append([Path(folder, f"{number}.{rank}.json") for rank in ranks])
            words += [word for rank, path in zip(ranks, found[-1], strict=True) for word in (told, str(rank), path)]
        command = [sys.executable, "-m", "tunemark_worker.simulation", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        limit_s = _TIMEOUT_S * sum(map(len, found))
        ending = ""
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
            )
            ending = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        except subprocess.TimeoutExpired:
            ending = f"it took more than {limit_s:.0f} s"
        return [
            [
                json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"error": ending.strip()}
                for path in paths
            ]
            for paths in found
        ]


def _rank(row: Mapping[str, Any]) -> RankStep:
    return msgspec.convert({**row, "bytes": row["memory_bytes"]}, RankStep, strict=False)


def _key(a: Assignment) -> str:
    """Changes with what is stepped, the code that steps it, and the libraries below."""
    raw = asdict(a)
    for name in ("run_id", "attempt", "token_file", "seed", "epochs", "steps", "warmup", "budget_s", "target_interval",
                 "window_s", "calibrate", "breakdown", "threads", "size", "device_options"):  # fmt: skip
        del raw[name]
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode())
    for package in ("torch", "transformers", "peft"):
        try:
            digest.update(f"{package}={metadata.version(package)}\0".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"{package}\0".encode())
    names = (a.model_runtime, a.strategy_runtime, a.device_runtime, "tunemark_torch.runtime:Cpu")
    packages = {"tunemark_worker", *(split_runtime(name)[0].partition(".")[0] for name in names)}
    for path in _sources(sorted(packages)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _sources(packages: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            found += sorted(Path(folder).rglob("*.py"))
    return found
