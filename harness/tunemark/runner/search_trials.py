"""Choose the layout of strategy `auto`: search by prediction, run short trials of the best few, store the log.

A trial is an ordinary attempt of a few steps, stored separately from the measurements. The search's duration is
reported with the run and is in no rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import GridPoint, Plan, format_named_options, make_plan, run_id
from tunemark.experiment.planning import DEFAULT_TRIALS
from tunemark.experiment.value_parsing import parse_strategy_terms
from tunemark.plugin import Catalog, LauncherSession
from tunemark.predict.search import (
    LayoutOption,
    RankedCandidate,
    SearchLog,
    SearchResult,
    choose_by_prediction,
    find_micro_batch_neighbours,
    make_option,
    search_layouts,
    select_logged,
    select_trials,
)
from tunemark.predict.search_problem import (
    USABLE_MEMORY_FRACTION,
    SearchProblem,
    find_smallest_size,
    make_search_problem,
)
from tunemark.results import Result, Store
from tunemark.runner.sweep import RunObserver, prepare_runs, run_sweep

# Length of a trial: steps for about TRIAL_S seconds, within these limits, after a warm-up.
TRIAL_S = 3.0
MIN_TRIAL_STEPS, MAX_TRIAL_STEPS = 6, 30
TRIAL_WARMUP_STEPS = 2

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenLayout:
    """The plan with the chosen layout, under the requested strategy's name, and the search's log."""

    plan: Plan
    log: SearchLog


class _StoredSearch(msgspec.Struct, forbid_unknown_fields=True):
    """A search's result as it is stored, for a command that continues an interrupted one."""

    schema: int
    fingerprint: str
    log: SearchLog


def choose_layout(
    plan: Plan,
    store: Store,
    catalog: Catalog,
    launching: LauncherSession,
    *,
    redo: bool,
    timeout_s: float,
    watch: RunObserver,
    clock: Callable[[], float] = time.perf_counter,
) -> ChosenLayout:
    """Search and run trials, or reuse the stored choice of the same code, data, interpreter and calibration.

    Raises `BadExperiment` where nothing fits, before any device is used. Where all trials fail, the layout that needs
    the least memory is chosen, so that the run's result shows how it fails.
    """
    (ready,) = prepare_runs([plan], store, RunObserver(), launching)
    path = store.root / "search" / f"{run_id(replace(plan.spec, breakdown=False))}.json"
    asked = make_search_problem(plan, catalog)
    kept = None if redo else _read_stored_log(path, ready.fingerprint)
    # The source names the calibration: with a new one another layout may be best.
    if kept is not None and kept.chosen is not None and kept.source == asked.ground.source:
        watch.message(f"{plan.spec.strategy}: chosen before with the same code, data and interpreter: {_choice(kept)}")
        return ChosenLayout(plan=make_plan_of_option(plan, kept.chosen, catalog), log=kept)
    found = predict_candidates(plan, asked)
    watch.message(f"{plan.spec.strategy}: {format_candidate_counts(found.log)}")
    trials = trial_count(plan)
    began_s = clock()
    tried = _run_trials(plan, found, trials, store, catalog, launching, timeout_s, watch) if trials else {}
    log = complete_log(found, tried, clock() - began_s)
    watch.message(f"{plan.spec.strategy}: {_choice(log)}")
    assert log.chosen is not None, "something fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(_StoredSearch(schema=SCHEMA, fingerprint=ready.fingerprint, log=log)))
    return ChosenLayout(plan=make_plan_of_option(plan, log.chosen, catalog), log=log)


def predict_candidates(plan: Plan, asked: SearchProblem) -> SearchResult:
    """The ranked candidates of a plan; `BadExperiment` where none fits, with the smallest size that would."""
    found = search_layouts(
        asked.work, asked.space, asked.ground, refusal=asked.refusal, requested=asked.requested, free=asked.free
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
        have = "an unknown amount" if log.memory_bytes is None else f"{log.memory_bytes / 2**30:.1f} GiB"
        why = (
            f"of {log.candidates} layouts {log.possible} are possible and none fits: the one that needs least, "
            f"{row.words()}, takes {row.memory_bytes / 2**30:.1f} GiB on its fullest rank, which can use {have}"
        )
        size = find_smallest_size(asked)
        if asked.ground.is_shared:
            floor = row.memory_bytes * log.ranks / USABLE_MEMORY_FRACTION
            next = f"all ranks share this machine's memory: one of about {floor / 2**30:.0f} GiB would do"
        elif size is None:
            next = "no size of up to a million ranks would fit: a smaller model, --method lora, or --precision bf16"
        else:
            next = f"the smallest size that would fit is {size}"
    return BadExperiment(what=f"{what} cannot be laid out", why=why, next=next)


def trial_count(plan: Plan) -> int:
    """Number of trials that the strategy's option `trials` asks for."""
    (factor,) = parse_strategy_terms(plan.spec.strategy)
    return int(factor.options.get("trials", str(DEFAULT_TRIALS)))


def make_plan_of_option(plan: Plan, option: LayoutOption, catalog: Catalog) -> Plan:
    """The plan with an option's layout, under the requested strategy's name and run id."""
    concrete = _make_concrete_plan(plan, option, catalog)
    spec = replace(concrete.spec, strategy=plan.spec.strategy)
    return replace(concrete, run_id=plan.run_id, spec=spec, notes=plan.notes)


def format_candidate_counts(log: SearchLog) -> str:
    return (
        f"{log.candidates} layouts of {log.ranks} ranks, {log.possible} possible, {log.fitting} fit "
        f"(looked at in {log.prediction_s:.2f} s)"
    )


def _choice(log: SearchLog) -> str:
    assert log.chosen is not None
    rate = log.chosen.tried_tokens_per_s
    how = f"{rate:,.0f} slot tokens/s in its trial" if rate is not None else "by prediction alone"
    return f"runs {log.chosen.words()}, {how}; the search took {log.search_s:.1f} s"


def _read_stored_log(path: Path, fingerprint: str) -> SearchLog | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_StoredSearch)
    except (OSError, msgspec.MsgspecError):
        return None
    return found.log if found.schema == SCHEMA and found.fingerprint == fingerprint else None


def _make_concrete_plan(plan: Plan, option: LayoutOption, catalog: Catalog) -> Plan:
    """The plan that a user would get by asking for that layout explicitly."""
    values = {
        **asdict(plan.spec),
        "strategy": option.strategy,
        "micro_batch": option.micro_batch,
        "checkpointing": option.checkpointing,
        "verify": False,
        "oversubscribe": plan.accelerator.oversubscribed,
        "launcher": format_named_options(plan.launcher.name, plan.launcher_options),
        "trust_remote_code": plan.trust_remote_code,
        "allow_pickle": plan.allow_pickle,
    }
    found = make_plan(GridPoint(values=values, sources={}), catalog)
    return replace(found, accelerator=plan.accelerator)


def _run_trials(
    plan: Plan,
    found: SearchResult,
    trials: int,
    store: Store,
    catalog: Catalog,
    launching: LauncherSession,
    timeout_s: float,
    watch: RunObserver,
) -> dict[int, LayoutOption]:
    """Results of trials by index of the candidate: two thirds of the trials for the best predictions, the rest near the
    fastest of these. Where all fail, up to as many again with layouts that need less memory."""
    apart = Store(store.root / "search")
    positions = {id(each): i for i, each in enumerate(found.ranked)}
    done: dict[int, LayoutOption] = {}
    for each in select_trials(found.ranked, trials - trials // 3):
        number = positions[id(each)]
        done[number] = _run_trial(plan, each, apart, catalog, launching, timeout_s, watch)
    while len(done) < trials and (best := find_fastest_trial(done)) is not None:
        near = [
            *find_micro_batch_neighbours(found.ranked, found.ranked[best]),
            *select_trials(found.ranked, trials + len(done)),
        ]
        left = [each for each in near if positions[id(each)] not in done]
        if not left:
            break
        done[positions[id(left[0])]] = _run_trial(plan, left[0], apart, catalog, launching, timeout_s, watch)
    if find_fastest_trial(done) is not None:
        return done
    for number, each in enumerate(found.ranked):
        least = min(option.memory_bytes for option in done.values())
        if len(done) >= 2 * trials:
            break
        if number not in done and each.prediction.bytes.total < 0.9 * least:
            done[number] = _run_trial(plan, each, apart, catalog, launching, timeout_s, watch)
            if done[number].outcome == "tried":
                break
    return done


def _run_trial(
    plan: Plan,
    each: RankedCandidate,
    apart: Store,
    catalog: Catalog,
    launching: LauncherSession,
    timeout_s: float,
    watch: RunObserver,
) -> LayoutOption:
    """Run one trial: a few steps of a candidate, in processes of its own."""
    option = make_option(each, "tried")
    steps = math.ceil(TRIAL_S / each.prediction.step_time_s)
    began_s = time.perf_counter()
    try:
        concrete = _make_concrete_plan(plan, option, catalog)
        spec = replace(
            concrete.spec,
            steps=min(MAX_TRIAL_STEPS, max(MIN_TRIAL_STEPS, steps)),
            warmup=TRIAL_WARMUP_STEPS,
            epochs=None,
            budget=None,
            breakdown=False,
            target_interval=0.0,
            evaluate=None,
            sample=None,
            save=None,
        )
        short = replace(concrete, spec=spec, run_id=run_id(spec))
        ready = prepare_runs([short], apart, RunObserver(), launching)
        (result,) = run_sweep(
            ready, apart, catalog, repeats=1, redo=True, timeout_s=timeout_s, calibrate=False, watch=watch
        )
    except TunemarkError as error:
        words = " ".join(str(error).split())
        return replace(option, outcome="failed", reason=words, trial_s=time.perf_counter() - began_s)
    seconds = time.perf_counter() - began_s
    rate = result.slot_tokens_per_s
    if result.status != "ok" or rate is None:
        return replace(option, outcome="failed", reason=_format_failure(result), trial_s=seconds)
    return replace(option, tried_tokens_per_s=rate.value, trial_s=seconds)


def find_fastest_trial(tried: Mapping[int, LayoutOption]) -> int | None:
    """Index of the fastest trial's candidate; None where no trial has a rate."""
    rates = {number: rate for number, option in tried.items() if (rate := option.tried_tokens_per_s) is not None}
    return max(rates, key=rates.__getitem__, default=None)


def _format_failure(result: Result) -> str:
    evidence = " ".join(result.each_attempt[-1].evidence.split())
    return f"{result.status}: {evidence}" if result.status != "ok" else "no step was timed"


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
