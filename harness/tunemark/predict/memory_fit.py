"""Does it fit? The predicted memory of a plan against what each rank may use, and the nearest change that fits.

Changes are tried in the order of how much of the training they change: first how the same step is computed, then how
the model is laid out over the same ranks, then the precision, then what is trained, and the size last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunemark.errors import TunemarkError
from tunemark.experiment.plan import Plan
from tunemark.experiment.planning import derive_plan
from tunemark.number_format import format_gib
from tunemark.plugin.catalog import Catalog
from tunemark.predict.measured_memory import find_measured_memory
from tunemark.predict.memory_model import predict_memory
from tunemark.predict.plan_conversion import convert_plan
from tunemark.predict.plan_prediction import PlanPrediction, predict_plan
from tunemark.predict.search import has_fitting_candidate
from tunemark.predict.search_problem import (
    USABLE_MEMORY_FRACTION,
    SearchProblem,
    find_base_facts,
    find_searchable_strategies,
    find_smallest_size,
    make_search_problem,
)

FitOutcome = Literal["fits", "may not fit", "does not fit"]
# Settings that leave what is computed as it is, and those that do not, nearest first.
_STEP_CHANGES: tuple[Mapping[str, Any], ...] = ({}, {"checkpointing": "full"})
_TRAINING_CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"precision": "bf16"},
    {"method": "qlora"},
    {"method": "lora"},
    {"method": "lora", "precision": "bf16"},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFit:
    """memory_bytes, low_bytes, high_bytes: predicted, of the rank that needs most. usable_bytes: of what each rank has.
    change: the nearest one that fits, as flags of the command line; "" where none is needed or none is known."""

    outcome: FitOutcome
    memory_bytes: float
    low_bytes: float
    high_bytes: float
    usable_bytes: float
    change: str = ""

    def words(self) -> str:
        """Whether it fits, and what would."""
        have = f"{format_gib(self.usable_bytes)} GiB that a rank may use"
        need = f"{format_gib(self.memory_bytes)} GiB ({format_gib(self.low_bytes)} to {format_gib(self.high_bytes)})"
        if self.outcome == "fits":
            return f"fits: {need} predicted, of {have}"
        words = f"{self.outcome}: {need} predicted, more than the {have}"
        if self.outcome == "may not fit":
            words = f"may not fit: {need} predicted, its upper bound is above the {have}"
        return f"{words}; {self.change or 'no change of these settings is known to fit'}"


def compare_memory(needed: float, low: float, high: float, usable: float) -> MemoryFit:
    """The fit of a predicted memory with its bounds, without a change that would help."""
    outcome: FitOutcome = "fits" if high <= usable else "may not fit" if needed <= usable else "does not fit"
    return MemoryFit(outcome=outcome, memory_bytes=needed, low_bytes=low, high_bytes=high, usable_bytes=usable)


def judge_fit(plan: Plan, catalog: Catalog, found: PlanPrediction | str) -> MemoryFit | None:
    """Whether a plan fits; None where it is not known how much memory it takes or there is. found: its prediction, or
    why its step cannot be predicted, as of a chip whose memory alone is known."""
    fit = _compare_plan(plan, found)
    if fit is None or fit.outcome == "fits":
        return fit
    return replace(fit, change=_find_change(plan, catalog, fit.outcome == "may not fit"))


def predict_plan_memory(plan: Plan) -> float | None:
    """Predicted bytes of the rank that needs most, whether or not its step time can be predicted; None where the cost
    model covers not the plan."""
    formula, known = predict_formula_memory(plan), find_measured_memory(plan)
    return formula if formula is None or known is None else known.correct(formula)


def predict_formula_memory(plan: Plan) -> float | None:
    """The same by the formulas alone, whatever runs held here."""
    if plan.strategy.is_search:
        return None
    converted = convert_plan(plan)
    return None if isinstance(converted, str) else predict_memory(*converted, find_base_facts(plan)).total


def _compare_plan(plan: Plan, found: PlanPrediction | str) -> MemoryFit | None:
    if not isinstance(found, str):
        if found.hardware.memory_bytes is None:
            return None
        predicted = found.predicted
        return compare_memory(predicted.memory_bytes, *predicted.memory_bounds_bytes, found.hardware.memory_bytes)
    whole, converted = plan.accelerator.memory_bytes, convert_plan(plan)
    if whole is None or isinstance(converted, str):
        return None
    work, layout = converted
    # Memory depends on no rate.
    facts = find_base_facts(plan)
    needed, known = predict_memory(work, layout, facts).total, find_measured_memory(plan)
    factor = math.exp(2 * (facts.memory_residual if known is None else known.residual))
    needed = needed if known is None else known.correct(needed)
    return compare_memory(needed, needed / factor, needed * factor, USABLE_MEMORY_FRACTION * whole / layout.ranks)


def _find_change(plan: Plan, catalog: Catalog, is_close: bool) -> str:
    """The nearest change of a plan that fits, as flags. is_close: its upper bound has to fit, too."""
    shards = [
        name
        for name, strategy in find_searchable_strategies(catalog, plan.device.name).items()
        if strategy.layout is not None and strategy.layout.degree == "shard"
    ]
    for settings in _list_changes(plan, shards):
        try:
            changed = derive_plan(plan, catalog, **settings)
        except TunemarkError:
            continue
        if changed.launch.processes != plan.launch.processes:
            continue
        fit = _compare_plan(changed, predict_plan(changed))
        if fit is not None and (fit.outcome == "fits" or (fit.outcome == "may not fit" and not is_close)):
            return f"{_format_flags(settings)} fits ({format_gib(fit.memory_bytes)} GiB)"
    try:
        size = find_smallest_size(make_search_problem(derive_plan(plan, catalog, strategy="auto"), catalog))
    except TunemarkError:
        return ""
    return f"the smallest size that would fit is {size}, with --strategy auto" if size else ""


def _list_changes(plan: Plan, shards: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Settings to try, nearest first: micro-batch and checkpointing within each other change. shards: strategies that
    shard the model over all ranks."""
    spec = plan.spec
    smaller = [size for size in (1 << n for n in range(10, -1, -1)) if size < spec.micro_batch]
    layouts: list[Mapping[str, Any]] = [{}]
    if plan.launch.processes > 1:
        layouts += [{"strategy": name} for name in shards if name != spec.strategy]
    for training in _TRAINING_CHANGES:
        if any(str(getattr(spec, name)).partition(":")[0] == value for name, value in training.items()):
            continue
        if "lora" in str(training.get("method", "")) and spec.method != "full":
            continue
        for layout in layouts:
            for step in _STEP_CHANGES:
                if step and spec.checkpointing == "full":
                    continue
                for batch in ({}, *({"micro_batch": size} for size in smaller)):
                    settings = {**training, **layout, **step, **batch}
                    if settings:
                        yield settings


def _format_flags(settings: Mapping[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def find_search_change(asked: SearchProblem) -> str:
    """The nearest change with which some layout of a search fits at its size; "" where none is known."""
    for settings in _TRAINING_CHANGES:
        if not settings or asked.vary is None:
            continue
        try:
            other = asked.vary(settings)
        except TunemarkError:
            continue
        if has_fitting_candidate(other.work, other.space, other.hardware, other.refusal):
            return f"{_format_flags(settings)} fits on this size"
    return ""
