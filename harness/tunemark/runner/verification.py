"""Verify that a strategy computes the same losses and gradient norms as one process over a few steps.

Step k has the same samples in every layout, so the two may differ only by the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, derive_plan
from tunemark.plugin import Catalog
from tunemark.runner.observer import run_title
from tunemark.runner.preparation import PreparedRun, prepare_runs
from tunemark.runner.session import Session
from tunemark.runner.sweep import run_sweep
from tunemark_worker.precision import PRECISIONS

VERIFICATION_STEPS = 5
# Settings of both runs.
_SHORT: Mapping[str, Any] = {
    "steps": VERIFICATION_STEPS, "warmup": 0, "epochs": None, "breakdown": False, "target_interval": 0.0,
    "budget": None, "sample": None, "save": None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Result of a verification. reference: the run that was compared with. loss, gradient_norm: largest relative
    differences. failure: why there is no comparison; empty where there is one."""

    reference: str
    tolerance: float
    steps: int = 0
    loss: float | None = None
    gradient_norm: float | None = None
    failure: str = ""


def verify(each: PreparedRun, session: Session) -> Mapping[str, Any] | None:
    """Train a few steps with the run's strategy and in one process, and compare; None for strategy none.

    The attempts are stored separately from the measurements, under `verification` in the store.
    """
    plan, say = each.plan, session.observer.message
    if plan.spec.strategy == "none":
        say(f"{run_title(plan)}: nothing to verify, strategy none is the reference of all others")
        return None
    tolerance = PRECISIONS[plan.spec.precision].tolerance
    try:
        reference = _make_reference_plan(plan, session.catalog)
    except TunemarkError as error:
        return asdict(Verification(reference="none", tolerance=tolerance, failure=str(error)))
    words = f"{reference.spec.device}:{reference.spec.size} {reference.spec.strategy}"
    say(f"{run_title(plan)}: verifying {VERIFICATION_STEPS} steps against {words}")
    apart = session.apart("verification")
    both = prepare_runs([plan.with_spec(**_SHORT), reference], apart)
    results = {result.run_id: result for result in run_sweep(both, apart)}
    bad = [(each, results[each.plan.run_id]) for each in both if results[each.plan.run_id].status != "ok"]
    if bad:
        failure = "; ".join(f"{run_title(each.plan)}: {r.status}, {r.each_attempt[-1].evidence}" for each, r in bad)
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    ours, theirs = (apart.store.measurements(each.plan.run_id)[-1] for each in both)
    loss = relative_difference(ours.losses, theirs.losses)
    norm = relative_difference(ours.gradient_norms, theirs.gradient_norms)
    if loss is None or norm is None:
        failure = "a loss or a gradient norm is missing or not finite"
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    steps = len(theirs.losses)
    return asdict(Verification(reference=words, tolerance=tolerance, steps=steps, loss=loss, gradient_norm=norm))


def verify_if_needed(each: PreparedRun, session: Session) -> PreparedRun:
    """The run with its verification; unchanged if all its attempts are finished and verified."""
    done = 0 if session.redo else session.store.finished_attempts(each.plan.run_id, each.fingerprint, verified=True)
    if done >= (1 if session.redo else session.repeats):
        return each
    return replace(each, verification=verify(each, session))


def _make_reference_plan(plan: Plan, catalog: Catalog) -> Plan:
    """The same steps in one process, at the same size if one process can use it, else at the device's default size."""
    settings = {**_SHORT, "strategy": "none"}
    try:
        return derive_plan(plan, catalog, **settings)
    except TunemarkError:
        return derive_plan(plan, catalog, **settings, size=plan.device.default_size())


def relative_difference(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The largest relative difference; None where they cannot be compared."""
    if not theirs or len(ours) != len(theirs) or not all(map(math.isfinite, [*ours, *theirs])):
        return None
    return max(abs(a - b) / abs(b) if b else abs(a) for a, b in zip(ours, theirs, strict=True))
