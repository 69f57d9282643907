"""Learn from one's own runs: move the constants of a chip by what a cluster has shown, and tell what that gains.

A hierarchical prior, as in the fit to published rows: all runs share one factor (clocks, software, way of measuring),
around which each constant stays near its shipped value unless the runs disagree (Gelman et al. 2013, "Bayesian Data
Analysis", chapter 5). The gain is that of runs that were left out. Runs of one chip and one software are learned
together; nothing of a single run is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tunemark.atomic_write import write_atomically
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.calibration import MIN_RESIDUAL, calibration_folder, digest_cost_model
from tunemark.predict.cost_model import predict_step_seconds
from tunemark.predict.layout import RankLayout, Workload

# Prior standard deviations of logarithms: of the factor that all runs share, and of each constant around it.
_COMMON = 0.2
_SPREADS: Mapping[str, float] = {
    "gemm": 0.10, "attention": 0.15, "memory": 0.12, "intra": 0.25, "inter": 0.4, "host_s": 0.3, "step_s": 0.7,
}  # fmt: skip
# Those that a slower machine has more of, not less.
_COSTS = ("host_s", "step_s")
# Standard deviation of one run's unexplained error, in the logarithm of the step time.
_NOISE = 0.05
_MAX_ITERATIONS = 8
# Runs are left out one by one, or in this many groups.
_GROUPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredStep:
    """A run that was measured: what it did, on what, and the seconds of a step."""

    name: str
    work: Workload
    layout: RankLayout
    device: DeviceFacts
    seconds: float

    @property
    def key(self) -> tuple[str, str]:
        """(chip, software), whose runs are learned together. Our own worker is "ours"."""
        return self.device.name, "ours" if self.work.stack.own else self.work.stack.framework


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedConstants:
    """What runs of a chip and a software have shown. moves: of each constant, as factors on the shipped ones, `common`
    in them. shipped, held_out: mean absolute errors of the step times with shipped constants, and with constants
    learned from the other runs. residual: standard deviation of the logarithm over those left out."""

    chip: str
    framework: str
    runs: int
    moves: dict[str, float]
    shipped: float
    held_out: float
    residual: float
    formulas: str

    @property
    def is_gain(self) -> bool:
        return self.held_out < self.shipped

    def apply(self, facts: DeviceFacts) -> DeviceFacts:
        """The facts of the chip as its runs have shown them. Bounds are those of the runs that were left out."""
        return replace(
            _move(facts, self.moves),
            learned_residual=self.residual,
            assumptions=(*facts.assumptions, f"constants learned from {self.runs} runs"),
        )


def learn(steps: Sequence[MeasuredStep]) -> LearnedConstants:
    """Learn from runs of one chip and one software, two or more."""
    chip, framework = steps[0].key
    shipped = [math.log(_predict(each, {}) / each.seconds) for each in steps]
    left_out = [0.0] * len(steps)
    groups = min(_GROUPS, len(steps))
    for group in range(groups):
        moves = _fit([each for i, each in enumerate(steps) if i % groups != group])
        for i, each in enumerate(steps):
            if i % groups == group:
                left_out[i] = math.log(_predict(each, moves) / each.seconds)
    return LearnedConstants(
        chip=chip,
        framework=framework,
        runs=len(steps),
        moves=_fit(steps),
        shipped=statistics.fmean(abs(math.expm1(x)) for x in shipped),
        held_out=statistics.fmean(abs(math.expm1(x)) for x in left_out),
        residual=max(MIN_RESIDUAL, math.sqrt(statistics.fmean(x * x for x in left_out))),
        formulas=digest_cost_model(),
    )


def _fit(steps: Sequence[MeasuredStep]) -> dict[str, float]:
    """Gauss-Newton steps on logarithms: one shared factor, and each constant's own move around it."""
    import numpy as np  # heavy, and needed here alone

    names = list(_SPREADS)
    spreads = np.array([_COMMON, *_SPREADS.values()])
    measured = np.log([each.seconds for each in steps])

    def factors(at: Any) -> dict[str, float]:
        return {
            name: math.exp(own - at[0] if name not in _COSTS else own + at[0])
            for name, own in zip(names, at[1:], strict=True)
        }

    def predicted(at: Any) -> Any:
        return np.log([_predict(each, factors(at)) for each in steps])

    at = np.zeros(len(spreads))
    for _ in range(_MAX_ITERATIONS):
        base = predicted(at)
        slopes = np.empty((len(steps), len(at)))
        for i in range(len(at)):
            there = at.copy()
            there[i] += 1e-3
            slopes[:, i] = (predicted(there) - base) / 1e-3
        left = np.vstack([slopes / _NOISE, np.diag(1.0 / spreads)])
        right = np.concatenate([(measured - base) / _NOISE, -at / spreads])
        move = np.clip(np.linalg.lstsq(left, right, rcond=None)[0], -0.5, 0.5)
        at = at + move
        if float(np.abs(move).max()) < 1e-3:
            break
    return factors(at)


def _predict(one: MeasuredStep, moves: Mapping[str, float]) -> float:
    return predict_step_seconds(one.work, one.layout, _move(one.device, moves)).total


def _move(facts: DeviceFacts, moves: Mapping[str, float]) -> DeviceFacts:
    """The facts with each constant in `moves` multiplied."""
    if not moves:
        return facts
    e = facts.efficiency
    own = {name: getattr(e, name) * factor for name, factor in moves.items() if name != "gemm"}
    gemm = {name: share * moves["gemm"] for name, share in e.gemm.items()}
    return replace(facts, efficiency=replace(e, gemm=gemm, **own))


def store_learned(found: LearnedConstants, where: Path | None = None) -> Path:
    """Store what was learned of a chip and a software, in place of an older one; returns its file."""
    target = _file(found.chip, found.framework, where)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(asdict(found), indent=1))
    return target


def find_learned(chip: str, framework: str, where: Path | None = None) -> LearnedConstants | None:
    """What was learned of a chip and a software with the present formulas; None where nothing was."""
    try:
        found = LearnedConstants(**json.loads(_file(chip, framework, where).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.formulas == digest_cost_model() else None


def _file(chip: str, framework: str, where: Path | None) -> Path:
    key = hashlib.sha256(f"{chip}\n{framework}".encode()).hexdigest()[:16]
    return (where or calibration_folder()) / f"learned-{key}.json"
