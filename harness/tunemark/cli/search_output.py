"""Prints the result of `tunemark plan --strategy auto`: the layout predicted to be best, and why. Nothing is run."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from tunemark.cli.messages import print_json
from tunemark.cli.plan_details import PlanDetails
from tunemark.cli.plan_table import plan_row, print_plans
from tunemark.cli.terminal import print_result
from tunemark.errors import TunemarkError
from tunemark.experiment import GridPoint, Plan
from tunemark.fields import read_fields
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_significant
from tunemark.plugin import Catalog
from tunemark.predict.absent_device import AbsentDeviceSearch, make_absent_device_search
from tunemark.predict.layout_choice import complete_log, make_infeasible_error, make_plan_of_option, predict_candidates
from tunemark.predict.search import LayoutOption, SearchLog, search_layouts
from tunemark.predict.search_problem import make_search_problem
from tunemark.report.search_tables import counts_text, explain_choice, format_prediction, memory_text, search_text


def print_searches(
    plans: Sequence[Plan],
    absent: Sequence[GridPoint],
    catalog: Catalog,
    details: PlanDetails,
    *,
    json: bool,
    verbose: bool = False,
) -> tuple[list[TunemarkError], list[TunemarkError]]:
    """Print plans, each with the layout found if it asks for a search, and searches for the points in `absent`, whose
    chips this machine does not have. verbose: with the layouts of every search, which one alone always shows. Returns
    the errors of those that do not fit, of plans and of absent chips; the rest is still printed."""
    errors: list[TunemarkError] = []
    absent_errors: list[TunemarkError] = []
    decisions: list[tuple[Plan, SearchLog | None]] = []
    for plan in plans:
        if not plan.strategy.is_search:
            decisions.append((plan, None))
            continue
        try:
            log = complete_log(predict_candidates(plan, make_search_problem(plan, catalog)), {}, 0.0)
        except TunemarkError as error:
            errors.append(error)
            continue
        assert log.chosen_option is not None, "something fits"
        decisions.append((make_plan_of_option(plan, log.chosen_option, catalog), log))
    predictions = []
    for point in absent:
        one = make_absent_device_search(point, catalog)
        q = one.question
        found = search_layouts(q.work, q.space, q.hardware, refusal=q.refusal, requested=q.requested, free=q.free)
        if found.ranked:
            predictions.append((one, complete_log(found, {}, 0.0)))
        else:
            failure = make_infeasible_error(one.title, found, q)
            absent_errors.append(failure)
            predictions.append((one, replace(found.log, notes=(f"{failure.what}: {failure.why}; {failure.next}",))))
    if json:
        for plan, found_log in decisions:
            searched = {} if found_log is None else {"search": _search_row(found_log)}
            print_json(json_module.dumps({**plan_row(plan), **details.row(plan), **searched}, allow_nan=False))
        for (one, log), point in zip(predictions, absent, strict=True):
            data = details.search_row(one, point, log.chosen_option)
            print_json(json_module.dumps({**_prediction_row(one, log), **data}, allow_nan=False))
    else:
        _print_tables(decisions, predictions, details, verbose=verbose)
        for (one, log), point in zip(predictions, absent, strict=True):
            if words := details.search_text(one, point, log.chosen_option):
                print_result(f"\n{words}")
    return errors, absent_errors


def _search_row(log: SearchLog) -> dict[str, Any]:
    chosen = log.chosen_option
    return {**asdict(log), "chosen": None if chosen is None else asdict(chosen), "because": explain_choice(log)}


def _prediction_row(one: AbsentDeviceSearch, log: SearchLog) -> dict[str, Any]:
    chosen = log.chosen_option
    rate = chosen.predicted_tokens_per_s if chosen else None
    layout = ("strategy", "micro_batch", "checkpointing", "gradient_accumulation")
    return {
        "model": one.model.name,
        "device": one.chip,
        "size": one.size,
        "ranks": one.size * one.dies,
        "is_present": False,
        **read_fields(one, "sequence", "global_batch", "precision", "optimizer", "method"),
        "fits": chosen is not None,
        **{name: getattr(chosen, name, None) for name in layout},
        "slot_tokens_per_s": rate,
        **{f"slot_tokens_per_s_{bound}": getattr(chosen, bound, None) for bound in ("low", "high")},
        "slot_tokens_per_s_per_device": rate / one.size if rate else None,
        "step_time_s": sum(chosen.seconds.values()) if chosen else None,
        "memory_bytes": chosen.memory_bytes if chosen else None,
        "search": _search_row(log),
    }


def _print_tables(
    decisions: Sequence[tuple[Plan, SearchLog | None]],
    predictions: Sequence[tuple[AbsentDeviceSearch, SearchLog]],
    details: PlanDetails,
    *,
    verbose: bool,
) -> None:
    if decisions:
        print_plans([plan for plan, _ in decisions], details, json=False)
    if predictions:
        print_result(_table(predictions))
    if not decisions and not predictions:
        return
    texts = [(f"{p.spec.model} {p.spec.device}:{p.spec.size} {p.spec.strategy}", log) for p, log in decisions if log]
    texts += [(one.title, log) for one, log in predictions]
    for title, log in texts:
        if verbose or len(texts) == 1:
            parts = [search_text(log, title), escape(explain_choice(log)), *map(escape, log.notes)]
        else:
            # What does not fit says in its note how many layouts there were.
            counts = "" if log.chosen_option is None else f"{title}: {counts_text(log)}; {explain_choice(log)}"
            parts = [escape(counts), *map(escape, log.notes)]
        for part in filter(None, parts):
            print_result(f"\n{part}")
    if len(texts) > 1 and not verbose:
        print_result("\n--verbose adds the layouts of each search, and why others were left out.")
    print_result(
        "\nPredicted, not measured: rates count slots of the whole job, bounds are two standard deviations of the "
        "prediction. Memory is of the fullest rank, with its upper bound where that exceeds the capacity."
    )


def _table(predictions: Sequence[tuple[AbsentDeviceSearch, SearchLog]]) -> str:
    ones = [one for one, _ in predictions]
    names = ("model", "precision", "method", "optimizer", "sequence")
    values = {name: [one.model.name if name == "model" else getattr(one, name) for one in ones] for name in names}
    shared = [f"{name} {found[0]}" for name, found in values.items() if len(set(found)) == 1]
    own = [name for name, found in values.items() if len(set(found)) > 1]
    header = [*own, "device", "size", "layout", "checkpointing", "ranks", "global batch (sequences)", "micro-batch",
              "slot tokens/s", "for each device", "step (s)", "memory (GiB)"]  # fmt: skip
    rows = []
    for i, (one, log) in enumerate(predictions):
        cells = [str(values[name][i]) for name in own]
        rows.append([*cells, one.chip, str(one.size), *_cells(one, log.chosen_option, log.memory_bytes)])
    return "\n".join(["; ".join(shared), "", markdown_table(header, rows, "<" * (len(own) + 4) + ">")])


def _cells(one: AbsentDeviceSearch, chosen: LayoutOption | None, capacity: float | None) -> list[str]:
    ranks, batch = f"{one.size * one.dies:,}", f"{one.global_batch:,}"
    if chosen is None or chosen.predicted_tokens_per_s is None or chosen.low is None or chosen.high is None:
        return ["does not fit", "-", ranks, batch, *["-"] * 5]
    rate, low, high = map(format_prediction, (chosen.predicted_tokens_per_s, chosen.low, chosen.high))
    return [
        escape(chosen.strategy), chosen.checkpointing, ranks, batch, str(chosen.micro_batch),
        f"{rate} ({low} to {high})",
        format_prediction(chosen.predicted_tokens_per_s / one.size),
        format_significant(sum(chosen.seconds.values()), 3),
        memory_text(chosen, capacity),
    ]  # fmt: skip
