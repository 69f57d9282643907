"""What the harness itself costs: its rate over that of the same training in a plain torch loop, in alternating pairs,
and the share of a core that the parent uses while the worker times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import tunemark_worker
from tunemark.errors import BadExperiment
from tunemark.experiment import Plan, make_experiment, make_grid_points, make_plans
from tunemark.plugin import Catalog
from tunemark.results.ratio import Ratio, RatioTerm, estimate_ratio
from tunemark.runner.observer import RunObserver
from tunemark.runner.preparation import PreparedRun, prepare_runs
from tunemark.runner.session import make_session
from tunemark.runner.sweep import run_sweep
from tunemark_worker import by_hand

# Both sides of a pair: small steps, of which the harness's own share is largest, of the loop that anybody would write.
_SETTINGS: Mapping[str, Any] = {
    "device": "auto", "sequence": "128", "micro_batch": "2", "recipe": "plain", "allocator": "tuned", "repeats": "1",
    "target_interval": "0", "no_measure_peak": True,
}  # fmt: skip
WARMUP, STEPS = 5, 40


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """ratio: the harness's content tokens/s over those by hand, of pairs. parent_share: of a core, that the parent used
    between the first and the last timed step; the largest of all pairs."""

    pairs: tuple[tuple[float, float], ...]
    ratio: Ratio
    parent_share: float | None


@dataclass(kw_only=True, slots=True)
class _ParentClock:
    """Processor time of this process over the wall time between the edges of windows."""

    began: tuple[float, float] | None = None
    ended: tuple[float, float] | None = None
    shares: list[float] = field(default_factory=list)

    def observe(self, ready: PreparedRun, record: Mapping[str, Any]) -> None:
        if record["kind"] == "edge" and record["steps"] >= WARMUP:
            self.ended = (time.process_time(), time.monotonic())
            self.began = self.began or self.ended

    def finish(self) -> None:
        if self.began is not None and self.ended is not None and self.ended[1] > self.began[1]:
            self.shares.append((self.ended[0] - self.began[0]) / (self.ended[1] - self.began[1]))
        self.began = self.ended = None


def measure_overhead(pairs: int, catalog: Catalog, say: RunObserver) -> Overhead:
    """Measure pairs, every other one with the loop by hand first. Raises `BadExperiment` where a run does not end
    well."""
    found: list[tuple[float, float]] = []
    clock = _ParentClock()
    with tempfile.TemporaryDirectory(prefix="tunemark-overhead-") as folder:
        # A run of one step writes the plan that the other side follows, and warms up files and libraries.
        plan, environment = _rehearse(Path(folder), catalog, say)
        observer = RunObserver(message=say.message, record=clock.observe)
        for number in range(pairs):
            is_hand_first = number % 2 == 1
            hand = run_by_hand(plan, environment) if is_hand_first else None
            result = _run(Path(folder, f"pair-{number}"), catalog, observer, steps=STEPS, warmup=WARMUP)
            clock.finish()
            hand = run_by_hand(plan, environment) if hand is None else hand
            rate = result.tokens_per_s.value if result.tokens_per_s else 0.0
            found.append((rate, hand["content"] / hand["seconds"]))
            say.message(f"pair {number + 1} of {pairs}: {found[-1][0] / found[-1][1]:.3f} of the loop by hand")
    sides = list(zip(*found, strict=True))
    ratio = estimate_ratio([RatioTerm(1.0, sides[0]), RatioTerm(-1.0, sides[1])], in_rounds=True)
    return Overhead(pairs=tuple(found), ratio=ratio, parent_share=max(clock.shares, default=None))


def run_by_hand(
    plan: Path,
    environment: Mapping[str, str],
    *,
    python: str = sys.executable,
    warmup: int = WARMUP,
    steps: int = STEPS,
) -> dict[str, float]:
    """Train as an attempt's plan.json says, in a plain loop in a process of its own: what `train_by_hand` returns."""
    command = [python, str(Path(by_hand.__file__).absolute()), str(plan), str(warmup), str(steps)]
    done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def copy_environment(worker: Mapping[str, Any]) -> dict[str, str]:
    """This process's environment with the variables that the harness gave its worker, as the worker reports them."""
    threads = str(worker["threads"])
    # Another interpreter has nothing of tunemark; its worker needs only torch.
    harness = str(Path(tunemark_worker.__file__).parents[1])
    paths = os.pathsep.join([harness, *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": paths}
    return {**os.environ, **own, **worker["allocator"]}


def _rehearse(folder: Path, catalog: Catalog, say: RunObserver) -> tuple[Path, dict[str, str]]:
    result = _run(folder / "rehearsal", catalog, say, steps=1, warmup=0)
    (plan,) = (folder / "rehearsal").glob("*/*/plan.json")
    return plan, copy_environment(result.environment["worker"])


def _run(store: Path, catalog: Catalog, observer: RunObserver, *, steps: int, warmup: int) -> Any:
    flags = {**_SETTINGS, "store": str(store), "steps": str(steps), "warmup": str(warmup)}
    experiment = make_experiment(flags)
    plans: list[Plan] = make_plans(make_grid_points(experiment), catalog)
    session = make_session(experiment, plans[0], catalog, observer)
    try:
        (result,) = run_sweep(prepare_runs(plans, session), session)
    finally:
        session.launching.close()
    if result.status != "ok" or (steps > 1 and result.tokens_per_s is None):
        raise BadExperiment(
            what="the harness's own cost could not be measured",
            why=f"{result.status}: {result.each_attempt[-1].evidence}",
            next="`tunemark run` shows whether a small model can be trained here",
        )
    return result
