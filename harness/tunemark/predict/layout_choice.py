"""Choose the layout of strategy `auto`: rank candidates by prediction, and take the best of those that were tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunemark.errors import BadExperiment
from tunemark.experiment import Plan, derive_plan
from tunemark.experiment.mesh_layout import parse_strategy_terms
from tunemark.experiment.named_parts import DEFAULT_TRIALS
from tunemark.number_format import GIB
from tunemark.plugin import Catalog
from tunemark.predict.memory_fit import find_search_change
from tunemark.predict.search import (
    LayoutOption,
    SearchLog,
    SearchResult,
    choose_by_prediction,
    make_option,
    search_layouts,
    select_logged,
)
from tunemark.predict.search_problem import USABLE_MEMORY_FRACTION, SearchProblem, find_smallest_size


def predict_candidates(plan: Plan, asked: SearchProblem) -> SearchResult:
    """The ranked candidates of a plan; `BadExperiment` where none fits, with the smallest size that would."""
    found = search_layouts(
        asked.work, asked.space, asked.hardware, refusal=asked.refusal, requested=asked.requested, free=asked.free
    )
    if found.ranked:
        return found
    raise make_infeasible_error(f"{plan.model.name} on {plan.device.name}:{plan.accelerator.name}", found, asked)


def make_infeasible_error(what: str, found: SearchResult, asked: SearchProblem) -> BadExperiment:
    """The error that no layout fits; names the one that needs least and the smallest size on which one would fit."""
    log = found.log
    if not log.candidates:
        why = f"no layout of {log.ranks} ranks divides a global batch of {log.global_batch}"
        next = "--global-batch with more divisors, or a smaller micro-batch"
    elif not log.possible:
        why = "; ".join(log.rejected) or "no strategy that the cost model covers is installed"
        next = "another size or --global-batch"
    else:
        row = min(log.options, key=lambda option: option.memory_bytes)
        have = "an unknown amount" if log.memory_bytes is None else f"{log.memory_bytes / GIB:.1f} GiB"
        why = (
            f"of {log.candidates} layouts {log.possible} are possible and none fits: the one that needs least, "
            f"{row.words()}, takes {row.memory_bytes / GIB:.1f} GiB on its fullest rank, which can use {have}"
        )
        size = find_smallest_size(asked)
        if asked.hardware.is_shared:
            floor = row.memory_bytes * log.ranks / USABLE_MEMORY_FRACTION
            next = f"all ranks share this machine's memory: one of about {floor / GIB:.0f} GiB would do"
        else:
            change = find_search_change(asked)
            sizes = f"the smallest size that would fit is {size}"
            if size is None:
                sizes = "no size of up to a million ranks would fit" + ("" if change else ": choose a smaller model")
            next = "; or ".join(filter(None, [change, sizes]))
    return BadExperiment(what=f"{what} cannot be laid out", why=why, next=next)


def format_candidate_counts(log: SearchLog) -> str:
    return (
        f"{log.candidates} layouts of {log.ranks} ranks, {log.possible} possible, {log.fitting} fit "
        f"(looked at in {log.prediction_s:.2f} s)"
    )


def trial_count(plan: Plan) -> int:
    """Number of trials that the strategy's option `trials` asks for."""
    (factor,) = parse_strategy_terms(plan.spec.strategy)
    return int(factor.options.get("trials", str(DEFAULT_TRIALS)))


def complete_log(found: SearchResult, tried: dict[int, LayoutOption], trial_s: float) -> SearchLog:
    """The log with its choice: the fastest trial; the least memory where all failed; else the best prediction."""
    first = find_fastest_trial(tried)
    if first is not None:
        best = first
    elif tried:
        best = min(tried, key=lambda number: tried[number].memory_bytes)
    else:
        best = choose_by_prediction(found.ranked)
    rows = {id(each): make_option(each) for each in select_logged(found.ranked)}
    for number in {*tried, best}:
        rows[id(found.ranked[number])] = tried.get(number) or make_option(found.ranked[number])
    chosen = found.ranked[best]
    rows[id(chosen)] = replace(rows[id(chosen)], outcome="chosen")
    ordered = [rows[id(each)] for each in found.ranked if id(each) in rows]
    lacking = [option for option in found.log.options if option.outcome == "does not fit"]
    return replace(found.log, trials=len(tried), trial_s=trial_s, options=(*ordered, *lacking))


def find_fastest_trial(tried: Mapping[int, LayoutOption]) -> int | None:
    """Index of the fastest trial's candidate; None where no trial has a rate."""
    rates = {number: rate for number, option in tried.items() if (rate := option.tried_tokens_per_s) is not None}
    return max(rates, key=rates.__getitem__, default=None)


def make_plan_of_option(plan: Plan, option: LayoutOption, catalog: Catalog) -> Plan:
    """The plan with an option's layout, under the requested strategy's name and run id."""
    concrete = make_concrete_plan(plan, option, catalog)
    spec = replace(concrete.spec, strategy=plan.spec.strategy)
    return replace(concrete, run_id=plan.run_id, spec=spec, notes=plan.notes, requested_spec=plan.spec)


def make_concrete_plan(plan: Plan, option: LayoutOption, catalog: Catalog) -> Plan:
    """The plan that a user would get by asking for that layout explicitly."""
    layout = {"strategy": option.strategy, "micro_batch": option.micro_batch, "checkpointing": option.checkpointing}
    return replace(derive_plan(plan, catalog, **layout), accelerator=plan.accelerator)
