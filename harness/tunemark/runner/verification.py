"""Verify that a strategy computes the same losses and gradient norms as one process over a few steps.

Step k has the same samples in every layout, so the two may differ only by the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.experiment import GridPoint, Plan, format_named_options, make_plan, run_id
from tunemark.plugin import Catalog
from tunemark.results import Store
from tunemark.runner.sweep import PreparedRun, RunObserver, prepare_runs, run_sweep, run_title
from tunemark_worker.precision import PRECISIONS

VERIFICATION_STEPS = 5


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


def verify(
    each: PreparedRun, store: Store, catalog: Catalog, *, timeout_s: float, watch: RunObserver
) -> Mapping[str, Any] | None:
    """Train a few steps with the run's strategy and in one process, and compare; None for strategy none.

    The attempts are stored separately from the measurements, under `verification` in the store.
    """
    plan = each.plan
    if plan.spec.strategy == "none":
        watch.message(f"{run_title(plan)}: nothing to verify, strategy none is the reference of all others")
        return None
    tolerance = PRECISIONS[plan.spec.precision].tolerance
    try:
        reference = _make_reference_plan(plan, catalog)
    except TunemarkError as error:
        return asdict(Verification(reference="none", tolerance=tolerance, failure=str(error)))
    words = f"{reference.spec.device}:{reference.spec.size} {reference.spec.strategy}"
    watch.message(f"{run_title(plan)}: verifying {VERIFICATION_STEPS} steps against {words}")
    apart = Store(store.root / "verification")
    both = prepare_runs([_make_short_plan(plan), reference], apart, watch, each.launching)
    results = {
        r.run_id: r
        for r in run_sweep(
            both, apart, catalog, repeats=1, redo=True, timeout_s=timeout_s, calibrate=False, watch=watch
        )
    }
    bad = [(each, results[each.plan.run_id]) for each in both if results[each.plan.run_id].status != "ok"]
    if bad:
        failure = "; ".join(f"{run_title(each.plan)}: {r.status}, {r.each_attempt[-1].evidence}" for each, r in bad)
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    ours, theirs = (apart.measurements(each.plan.run_id)[-1] for each in both)
    loss = relative_difference(ours.losses, theirs.losses)
    norm = relative_difference(ours.gradient_norms, theirs.gradient_norms)
    if loss is None or norm is None:
        failure = "a loss or a gradient norm is missing or not finite"
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    steps = len(theirs.losses)
    return asdict(Verification(reference=words, tolerance=tolerance, steps=steps, loss=loss, gradient_norm=norm))


def _make_short_plan(plan: Plan) -> Plan:
    spec = replace(
        plan.spec, steps=VERIFICATION_STEPS, warmup=0, epochs=None, breakdown=False, target_interval=0.0, budget=None
    )
    spec = replace(spec, sample=None, save=None)
    return replace(plan, spec=spec, run_id=run_id(spec))


def _make_reference_plan(plan: Plan, catalog: Catalog) -> Plan:
    """The same steps in one process, at the same size if one process can use it, else at the device's default size."""
    spec = asdict(_make_short_plan(plan).spec)
    values = {**spec, "strategy": "none", "verify": False, "oversubscribe": plan.accelerator.oversubscribed}
    values |= {"trust_remote_code": plan.trust_remote_code, "allow_pickle": plan.allow_pickle}
    values["launcher"] = format_named_options(plan.launcher.name, plan.launcher_options)
    try:
        return make_plan(GridPoint(values=values, sources={}), catalog)
    except TunemarkError:
        return make_plan(GridPoint(values={**values, "size": plan.device.default_size()}, sources={}), catalog)


def relative_difference(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The largest relative difference; None where they cannot be compared."""
    if not theirs or len(ours) != len(theirs) or not all(map(math.isfinite, [*ours, *theirs])):
        return None
    return max(abs(a - b) / abs(b) if b else abs(a) for a, b in zip(ours, theirs, strict=True))
