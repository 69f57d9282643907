"""The simulated engine: step the real model under fake tensors and count its FLOPs, communication and memory.

Each rank that differs from the others is stepped in a process of its own (`tunemark_worker.simulation`), by the
worker's own code, strategies and optimizer. It gives no times; FLOPs, communicated bytes and memory are exact as far as
torch's operators show them. Results are cached under the hash of all that they depend on.
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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.cache import cache_folder
from tunemark.errors import TunemarkError
from tunemark.experiment.plan import Plan
from tunemark.plugin.descriptors import Strategy, StrategyAxis
from tunemark.predict.prediction import MemoryBytes
from tunemark.temporary import temporary_folder
from tunemark_worker.contract import Assignment, TokenFile, split_runtime

# Limit for one rank. A step of Mistral 7B on 1,024 ranks takes about half a minute; others may take ten times as long.
_TIMEOUT_S = 900.0
_NO_TOKENS = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
# Up to so many pipeline stages are all stepped; of more, the first two, a middle one and the last.
_MAX_STAGES = 4
_NO_CODE = {"error": "of its model no more than the dimensions is known here, and what is stepped is its code"}

_MANY_WIDTHS = {
    "error": "--batching bucket makes micro-batches of many widths, and one is stepped here: --batching pad steps the "
    "widest, which needs most memory"
}


_IN_HOST_MEMORY = {
    "error": "what is stepped here has one memory, and --activations host divides activations between two"
}


class SimulationFailed(TunemarkError):  # noqa: N818 - the sentence reads better: it is what happened
    """A plan whose step could not be simulated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedCollective:
    """A collective of one rank, `count` times in a step. payload_bytes: of the whole tensor, after a gather or before a
    scatter. ranks: of the group."""

    kind: str
    payload_bytes: int
    ranks: tuple[int, ...]
    count: int

    @property
    def sent_bytes(self) -> float:
        """Bytes that the rank sends in all `count` collectives by rings: (n - 1)/n of the payload, twice that for an
        all-reduce (Thakur, Rabenseifner and Gropp 2005, section 4), nothing for a receive."""
        n = len(self.ranks)
        if self.kind == "receive" or n < 2:
            return 0.0
        share = {"send": 1.0, "broadcast": 1.0, "all_reduce": 2.0 * (n - 1) / n}.get(self.kind, (n - 1) / n)
        return self.count * share * self.payload_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedRank:
    """One rank's step. flops: of matrix products by operator, recomputation included. bytes: of tensors at the memory
    peak. held: the largest of them by category, and operator and phase that made them. peak_phase, peak_operator: where
    in the step the peak is."""

    rank: int
    flops: Mapping[str, float]
    collectives: tuple[SimulatedCollective, ...]
    bytes: MemoryBytes
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
    """The step of a plan, by one rank of each kind. cached: read from the cache."""

    ranks: tuple[SimulatedRank, ...]
    cached: bool = False

    @property
    def flops(self) -> float:
        """FLOPs of a step of the rank that has most."""
        return max(rank.total_flops for rank in self.ranks)

    @property
    def sent_bytes(self) -> float:
        """Bytes sent in a step by the rank that sends most."""
        return max(rank.sent_bytes for rank in self.ranks)

    @property
    def bytes(self) -> MemoryBytes:
        """Peak memory of the rank that needs most."""
        return max((rank.bytes for rank in self.ranks), key=lambda held: held.total)


def simulate_all(plans: Sequence[Plan], *, cache: Path | None = None) -> list[Simulation | SimulationFailed]:
    """Step one rank of each kind of every plan, one plan after another in one process, which imports torch only once.

    A step that failed is a `SimulationFailed` with its last words. cache: a folder; by default $TUNEMARK_CACHE, or
    `tunemark` in $XDG_CACHE_HOME or in ~/.cache. Finished plans are cached even where the rest is interrupted.
    """
    folder = (cache or cache_folder()).absolute() / "simulations"
    places: dict[int, Path] = {}
    known: dict[Path, list[dict[str, Any]]] = {}
    jobs: dict[Path, tuple[Assignment, Sequence[int]]] = {}
    for number, plan in enumerate(plans):
        if _find_obstacle(plan):
            continue
        assignment = plan.assignment(_NO_TOKENS, "simulation", measure_peak=False)
        place = places[number] = folder / f"{_cache_key(assignment)}.json"
        if place in known or place in jobs:
            continue
        kept = _read_cache(place)
        if kept is None:
            jobs[place] = (assignment, select_representative_ranks(plan.axes, plan.strategies))
        else:
            known[place] = kept
    rows = {**known, **(_step_ranks(jobs) if jobs else {})}
    return [
        _simulation(
            plan,
            [refused] if (refused := _find_obstacle(plan)) else rows[places[number]],
            is_known=places.get(number) in known,
        )
        for number, plan in enumerate(plans)
    ]


def _find_obstacle(plan: Plan) -> dict[str, str] | None:
    """Why a plan cannot be stepped; None where it can."""
    if plan.model.runtime is None:
        return _NO_CODE
    if plan.spec.activations == "host":
        return _IN_HOST_MEMORY
    return _MANY_WIDTHS if plan.spec.batching == "bucket" else None


def _simulation(plan: Plan, ranks: Sequence[Mapping[str, Any]], *, is_known: bool) -> Simulation | SimulationFailed:
    wrong = next((row["error"] for row in ranks if "error" in row), None)
    if wrong is None:
        return Simulation(ranks=tuple(_make_rank_step(row) for row in ranks), cached=is_known)
    return SimulationFailed(
        what=f"strategy {plan.spec.strategy!r} of {plan.launch.processes} processes was not simulated",
        why=wrong,
        next="the analytic engine needs no simulation",
    )


def _read_cache(place: Path) -> list[dict[str, Any]] | None:
    """Rows in the cache; None where there are none or the file is not valid JSON."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _write_cache(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to the cache atomically: other processes may read or write the same file now."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, json.dumps(rows))


def select_representative_ranks(axes: Sequence[StrategyAxis], strategies: Sequence[Strategy]) -> tuple[int, ...]:
    """Ranks that represent all others. Ranks of one pipeline stage do the same, and the first of a shard group holds at
    least as much as any other."""
    stride = 1
    for axis, strategy in reversed(list(zip(axes, strategies, strict=False))):
        if strategy.layout is not None and strategy.layout.degree == "pipeline":
            last = axis.degree - 1
            stages = range(axis.degree) if axis.degree <= _MAX_STAGES else (0, 1, axis.degree // 2, last)
            return tuple(n * stride for n in stages)
        stride *= axis.degree
    return (0,)


def _step_ranks(jobs: Mapping[Path, tuple[Assignment, Sequence[int]]]) -> dict[Path, list[dict[str, Any]]]:
    """Step the ranks of each assignment in the worker; returns their rows by cache file, which it writes. A failed rank
    has a row with `error`, which is not cached."""
    with temporary_folder("simulation") as folder:
        words: list[str] = []
        outputs: dict[Path, list[Path]] = {}
        for number, (place, (assignment, ranks)) in enumerate(jobs.items()):
            plan = Path(folder, f"{number}.plan.json")
            plan.write_text(assignment.to_json(), encoding="utf-8")
            outputs[place] = [Path(folder, f"{number}.{rank}.json") for rank in ranks]
            for rank, path in zip(ranks, outputs[place], strict=True):
                words += [str(plan), str(rank), str(path)]
        ending = "it was interrupted"
        found: dict[Path, list[dict[str, Any]]] = {}
        try:
            ending = _run_worker(words, limit_s=_TIMEOUT_S * len(words) / 3)
        finally:
            for place, paths in outputs.items():
                found[place] = [_read_rank_row(path) or {"error": ending} for path in paths]
                if not any("error" in row for row in found[place]):
                    _write_cache(place, found[place])
        return found


def _read_rank_row(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _run_worker(words: Sequence[str], limit_s: float) -> str:
    """Run the worker to its end; returns the last line of its standard error. Its children end with it."""
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


def _make_rank_step(row: Mapping[str, Any]) -> SimulatedRank:
    return msgspec.convert({**row, "bytes": row["memory_bytes"]}, SimulatedRank, strict=False)


def _cache_key(a: Assignment) -> str:
    """Hash of the assignment, as far as a simulation depends on it, of the worker's and plugins' code, and of library
    versions."""
    raw = asdict(a)
    for name in ("run_id", "attempt", "token_file", "seed", "epochs", "steps", "warmup", "budget_s", "target_interval",
                 "window_s", "measure_peak", "breakdown", "threads", "size", "device_options"):  # fmt: skip
        del raw[name]
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode())
    for package in ("torch", "transformers", "peft"):
        try:
            digest.update(f"{package}={metadata.version(package)}\0".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"{package}\0".encode())
    names = (a.model_runtime, a.strategy_runtime, a.device_runtime, "tunemark_torch.runtime:CpuRuntime")
    packages = {"tunemark_worker", *(split_runtime(name)[0].partition(".")[0] for name in names)}
    for path in _find_sources(sorted(packages)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _find_sources(packages: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            found += sorted(Path(folder).rglob("*.py"))
    return found
