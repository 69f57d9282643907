"""What a plan's step does, counted by stepping the real model without data: the second engine beside `analytic`.

Each rank that differs from the others is stepped in a process of its own (`tunemark_worker.simulation`), by the
worker's own code, strategies and optimizer. Times are not found so; FLOPs, communicated bytes and memory are exact as
far as torch's operators show them. Results are kept under the hash of all that they depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
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
_NO_CODE = {"error": "of its model no more than the dimensions is known here, and what is stepped is its code"}


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
    """`simulate` for many plans, one after another, which saves the import of torch for all but the first. What is
    found is kept even where the rest is interrupted."""
    folder = (cache or cache_folder()).absolute() / "simulations"
    places: dict[int, Path] = {}
    known: dict[Path, list[dict[str, Any]]] = {}
    jobs: dict[Path, tuple[Assignment, Sequence[int]]] = {}
    for number, plan in enumerate(plans):
        if plan.model.runtime is None:
            continue
        assignment = plan.assignment(_NO_TOKENS, "simulation", calibrate=False)
        place = places[number] = folder / f"{_key(assignment)}.json"
        if place in known or place in jobs:
            continue
        kept = _kept(place)
        if kept is None:
            jobs[place] = (assignment, kinds_of_ranks(plan.axes))
        else:
            known[place] = kept
    rows = {**known, **(_run(jobs) if jobs else {})}
    return [
        _found(plan, rows[places[number]] if number in places else [_NO_CODE], is_known=places.get(number) in known)
        for number, plan in enumerate(plans)
    ]


def _found(plan: Plan, ranks: Sequence[Mapping[str, Any]], *, is_known: bool) -> Simulation | NoSimulation:
    wrong = next((row["error"] for row in ranks if "error" in row), None)
    if wrong is None:
        return Simulation(ranks=tuple(_rank(row) for row in ranks), cached=is_known)
    return NoSimulation(
        what=f"strategy {plan.spec.strategy!r} of {plan.launch.processes} processes was not simulated",
        why=wrong,
        next="the analytic engine needs no simulation",
    )


def _kept(place: Path) -> list[dict[str, Any]] | None:
    """Rows that were found before; None where there are none, or what is there is no whole JSON."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _keep(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows in their place, all at once: others may look there or put the same there now."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=place.parent, prefix=f".{place.name}.", delete=False, encoding="utf-8"
    ) as growing:
        try:
            json.dump(rows, growing)
            growing.close()
            os.replace(growing.name, place)
        except BaseException:
            Path(growing.name).unlink(missing_ok=True)
            raise


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


def _run(jobs: Mapping[Path, tuple[Assignment, Sequence[int]]]) -> dict[Path, list[dict[str, Any]]]:
    """What the worker says of each rank of each assignment, by the place in which it is then kept; a row with `error`
    where it failed, which is kept nowhere."""
    with tempfile.TemporaryDirectory(prefix="tunemark-simulation-") as folder:
        words: list[str] = []
        told: dict[Path, list[Path]] = {}
        for number, (place, (assignment, ranks)) in enumerate(jobs.items()):
            plan = Path(folder, f"{number}.plan.json")
            plan.write_text(assignment.to_json(), encoding="utf-8")
            told[place] = [Path(folder, f"{number}.{rank}.json") for rank in ranks]
            for rank, path in zip(ranks, told[place], strict=True):
                words += [str(plan), str(rank), str(path)]
        ending = "it was interrupted"
        found: dict[Path, list[dict[str, Any]]] = {}
        try:
            ending = _step(words, limit_s=_TIMEOUT_S * len(words) / 3)
        finally:
            for place, paths in told.items():
                found[place] = [_kept_row(path) or {"error": ending} for path in paths]
                if not any("error" in row for row in found[place]):
                    _keep(place, found[place])
        return found


def _kept_row(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _step(words: Sequence[str], limit_s: float) -> str:
    """Run the worker to its end; returns the last that it said. Its children end with it."""
    command = [sys.executable, "-m", "tunemark_worker.simulation", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as worker:
        try:
            _, said = worker.communicate(timeout=limit_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"it took more than {limit_s:.0f} s"
            raise
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


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
