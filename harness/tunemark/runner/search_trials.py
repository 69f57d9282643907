"""Choose the layout of strategy `auto`: run short trials of the layouts predicted to be best, and store the choice.

A trial is an ordinary attempt of a few steps, stored separately from the measurements. The search's duration is
reported with the run and is in no rate.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, run_id
from tunemark.predict.layout_choice import (
    complete_log,
    find_fastest_trial,
    format_candidate_counts,
    make_concrete_plan,
    make_plan_of_option,
    predict_candidates,
    trial_count,
)
from tunemark.predict.search import (
    LayoutOption,
    RankedCandidate,
    SearchLog,
    SearchResult,
    find_micro_batch_neighbours,
    make_option,
    select_trials,
)
from tunemark.predict.search_problem import make_search_problem
from tunemark.results import Result
from tunemark.runner.preparation import PreparedRun, prepare_runs
from tunemark.runner.session import Session
from tunemark.runner.sweep import run_sweep

# Length of a trial: steps for about TRIAL_S seconds, within these limits, after a warm-up.
TRIAL_S = 3.0
MIN_TRIAL_STEPS, MAX_TRIAL_STEPS = 6, 30
TRIAL_WARMUP_STEPS = 2

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedSearch:
    """The candidates of a plan. source: the calibration or the assumptions that the prediction rests on."""

    plan: Plan
    found: SearchResult
    source: str


class _StoredSearch(msgspec.Struct, forbid_unknown_fields=True):
    """A search's result as it is stored, for a command that continues an interrupted one."""

    schema: int
    fingerprint: str
    log: SearchLog


def predict_search(plan: Plan, session: Session) -> PredictedSearch:
    """Search by prediction. Raises `BadExperiment` where nothing fits, before any device is used."""
    asked = make_search_problem(plan, session.catalog)
    return PredictedSearch(plan=plan, found=predict_candidates(plan, asked), source=asked.hardware.source)


def choose_layout(search: PredictedSearch, ready: PreparedRun, session: Session) -> SearchLog:
    """Run trials of the best candidates, or reuse a stored choice of the same code, data, interpreter and calibration.

    ready: the plan of the search, prepared. Where all trials fail, the layout that needs the least memory is chosen, so
    that the run's result shows how it fails.
    """
    plan, say = search.plan, session.observer.message
    path = session.store.root / "search" / f"{run_id(replace(plan.spec, breakdown=False))}.json"
    # A breakdown run uses the layout of the run that it belongs to, which comes before it.
    kept = None if session.redo and not plan.spec.breakdown else _read_stored_log(path, ready.fingerprint)
    # The source names the calibration: with a new one another layout may be best.
    if kept is not None and kept.chosen_option is not None and kept.source == search.source:
        say(f"{plan.spec.strategy}: chosen before with the same code, data and interpreter: {_choice(kept)}")
        return kept
    say(f"{plan.spec.strategy}: {format_candidate_counts(search.found.log)}")
    began_s = time.perf_counter()
    log = complete_log(search.found, _run_trials(search, session), time.perf_counter() - began_s)
    say(f"{plan.spec.strategy}: {_choice(log)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(_StoredSearch(schema=SCHEMA, fingerprint=ready.fingerprint, log=log)))
    return log


def make_selected_plan(plan: Plan, log: SearchLog, session: Session) -> Plan:
    """The plan with the chosen layout, under the requested strategy's name."""
    assert log.chosen_option is not None, "something fits"
    return make_plan_of_option(plan, log.chosen_option, session.catalog)


def _choice(log: SearchLog) -> str:
    assert log.chosen_option is not None
    rate = log.chosen_option.tried_tokens_per_s
    how = f"{rate:,.0f} slot tokens/s in its trial" if rate is not None else "by prediction alone"
    return f"runs {log.chosen_option.words()}, {how}; the search took {log.search_s:.1f} s"


def _read_stored_log(path: Path, fingerprint: str) -> SearchLog | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_StoredSearch)
    except (OSError, msgspec.MsgspecError):
        return None
    return found.log if found.schema == SCHEMA and found.fingerprint == fingerprint else None


def _run_trials(search: PredictedSearch, session: Session) -> dict[int, LayoutOption]:
    """Results of trials by index of the candidate: two thirds of the trials for the best predictions, the rest near the
    fastest of these. Where all fail, up to as many again with layouts that need less memory."""
    ranked, trials = search.found.ranked, trial_count(search.plan)
    apart = session.apart("search")
    positions = {id(each): i for i, each in enumerate(ranked)}
    done: dict[int, LayoutOption] = {}

    def run(each: RankedCandidate) -> None:
        done[positions[id(each)]] = _run_trial(search.plan, each, apart)

    for each in select_trials(ranked, trials - trials // 3) if trials else ():
        run(each)
    while len(done) < trials and (best := find_fastest_trial(done)) is not None:
        near = [*find_micro_batch_neighbours(ranked, ranked[best]), *select_trials(ranked, trials + len(done))]
        left = [each for each in near if positions[id(each)] not in done]
        if not left:
            break
        run(left[0])
    if not trials or find_fastest_trial(done) is not None:
        return done
    for number, each in enumerate(ranked):
        least = min(option.memory_bytes for option in done.values())
        if len(done) >= 2 * trials:
            break
        if number not in done and each.prediction.bytes.total < 0.9 * least:
            run(each)
            if done[number].outcome == "tried":
                break
    return done


def _run_trial(plan: Plan, each: RankedCandidate, apart: Session) -> LayoutOption:
    """Run one trial: a few steps of a candidate, in processes of its own."""
    option = make_option(each, "tried")
    steps = math.ceil(TRIAL_S / each.prediction.step_time_s)
    began_s = time.perf_counter()
    try:
        short = make_concrete_plan(plan, option, apart.catalog).with_spec(
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
        (result,) = run_sweep(prepare_runs([short], apart.silenced()), apart)
    except TunemarkError as error:
        words = " ".join(str(error).split())
        return replace(option, outcome="failed", reason=words, trial_s=time.perf_counter() - began_s)
    seconds = time.perf_counter() - began_s
    rate = result.slot_tokens_per_s
    if result.status != "ok" or rate is None:
        return replace(option, outcome="failed", reason=_format_failure(result), trial_s=seconds)
    return replace(option, tried_tokens_per_s=rate.value, trial_s=seconds)


def _format_failure(result: Result) -> str:
    evidence = " ".join(result.each_attempt[-1].evidence.split())
    return f"{result.status}: {evidence}" if result.status != "ok" else "no step was timed"
