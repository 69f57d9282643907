"""Verify that a run computes the same losses and gradient norms as one process with plain kernels over a few steps.

Step k has the same samples in every layout, so the two may differ only by the order of additions. Plain are attention
with a mask, the scores of all tokens at once, an update tensor by tensor, and nothing compiled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, derive_plan
from tunemark.fields import read_fields
from tunemark.plugin import Catalog
from tunemark.results.trainer_rules import find_differences
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
    differences; of other programs' loops the loss alone. failure: why there is no comparison; empty where there is
    one."""

    reference: str
    tolerance: float
    steps: int = 0
    loss: float | None = None
    gradient_norm: float | None = None
    failure: str = ""


def verify(each: PreparedRun, session: Session) -> Mapping[str, Any] | None:
    """Train a few steps with the run's settings, and plainly in one process by tunemark's own loop, and compare; None
    for a run that is so.

    The attempts are stored separately from the measurements, under `verification` in the store.
    """
    plan, say = each.plan, session.observer.message
    if plan.spec.strategy == "none" and _plain_kernels(plan) == _kernels(plan) and not plan.trainer.runtime:
        say(f"{run_title(plan)}: nothing to verify, strategy none is the reference of all others")
        return None
    tolerance = PRECISIONS[plan.spec.precision].tolerance
    try:
        reference = _make_reference_plan(plan, session.catalog)
    except TunemarkError as error:
        return asdict(Verification(reference="none", tolerance=tolerance, failure=str(error)))
    words = f"{reference.spec.device}:{reference.spec.size} {reference.spec.strategy}"
    if _kernels(reference) != _kernels(plan):
        words += f" with {', '.join(f'{name} {value}' for name, value in _kernels(reference).items())}"
    words += " by tunemark's own loop" if plan.trainer.runtime else ""
    say(f"{run_title(plan)}: verifying {VERIFICATION_STEPS} steps against {words}")
    apart = session.apart("verification")
    both = prepare_runs([plan.with_spec(**_SHORT), reference], apart)
    results = {result.run_id: result for result in run_sweep(both, apart)}
    bad = [(each, results[each.plan.run_id]) for each in both if results[each.plan.run_id].status != "ok"]
    if bad:
        failure = "; ".join(f"{run_title(each.plan)}: {r.status}, {r.each_attempt[-1].evidence}" for each, r in bad)
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    ours, theirs = (apart.store.measurements(each.plan.run_id)[-1] for each in both)
    # Less padding changes no loss.
    if differs := {name: how for name, how in find_differences(ours).items() if name != "padding"}:
        failure = f"the trainer does otherwise: {'; '.join(f'{name}: {how}' for name, how in differs.items())}"
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    loss = relative_difference(ours.losses, theirs.losses)
    norm = relative_difference(ours.gradient_norms, theirs.gradient_norms)
    if plan.trainer.runtime and loss is not None:
        # Not every program says what its gradients' norm is, and torch's own, by which most clip, rounds to 1e-4.
        return asdict(Verification(reference=words, tolerance=tolerance, steps=len(theirs.losses), loss=loss))
    if loss is None or norm is None:
        failure = "a loss or a gradient norm is missing or not finite"
        return asdict(Verification(reference=words, tolerance=tolerance, failure=failure))
    steps = len(theirs.losses)
    return asdict(Verification(reference=words, tolerance=tolerance, steps=steps, loss=loss, gradient_norm=norm))


def verify_if_needed(each: PreparedRun, session: Session, *, is_asked: bool) -> PreparedRun:
    """The run with its verification; unchanged if all its attempts are finished and verified, or if neither the user
    nor a recipe asks for one."""
    if not is_asked and not each.plan.recipe:
        return each
    done = 0 if session.redo else session.store.finished_attempts(each.plan.run_id, each.fingerprint, verified=True)
    if done >= (1 if session.redo else session.repeats):
        return each
    return replace(each, verification=verify(each, session))


def _make_reference_plan(plan: Plan, catalog: Catalog) -> Plan:
    """The same steps in one process by tunemark's own loop, at the same size if one process can use it, else at the
    device's default size."""
    settings = {**_SHORT, **_plain_kernels(plan), "strategy": "none", "trainer": "tunemark"}
    try:
        return derive_plan(plan, catalog, **settings)
    except TunemarkError:
        return derive_plan(plan, catalog, **settings, size=plan.device.default_size())


def _kernels(plan: Plan) -> dict[str, str]:
    """The settings of how a step is computed."""
    return read_fields(plan.spec, "attention", "loss", "optimizer_impl", "update", "activations", "compile")


def _plain_kernels(plan: Plan) -> dict[str, str]:
    """The settings that do the same plainly; those that do already are kept."""
    found = _kernels(plan)
    known = plan.model.supports.get("attention", ())
    if found["attention"] not in ("auto", "sdpa", "eager"):
        found["attention"] = "sdpa" if "sdpa" in known else "eager"
    if found["optimizer_impl"] == "fused":
        found["optimizer_impl"] = "loop"
    return {**found, "loss": "plain", "update": "at-end", "activations": "device", "compile": "off"}


def relative_difference(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The largest relative difference; None where they cannot be compared."""
    if not theirs or len(ours) != len(theirs) or not all(map(math.isfinite, [*ours, *theirs])):
        return None
    return max(abs(a - b) / abs(b) if b else abs(a) for a, b in zip(ours, theirs, strict=True))
