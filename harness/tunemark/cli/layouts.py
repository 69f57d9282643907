"""Prints the result of `tunemark plan --strategy auto`: the layout predicted to be best, and why. Nothing is run."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from tunemark.cli.plan import print_plans, row
from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, Point
from tunemark.plugin import Catalog
from tunemark.predict.elsewhere import Elsewhere, elsewhere
from tunemark.predict.ground import question
from tunemark.predict.search import Option, SearchLog, search
from tunemark.report.comparison import markdown
from tunemark.report.rounding import escaped
from tunemark.report.search import because, memory_words, rounded, search_text
from tunemark.trials import decided, infeasible, plan_of, predicted
from tunemark.units import significant


def print_searches(plans: Sequence[Plan], absent: Sequence[Point], catalog: Catalog, *, json: bool) -> int:
    """Print plans, each with the layout found if it asks for a search, and searches for the points in `absent`, whose
    chips this machine does not have. Returns exit code 2 if something does not fit, with an error on standard error;
    the rest is still printed."""
    errors: list[TunemarkError] = []
    decisions: list[tuple[Plan, SearchLog | None]] = []
    for plan in plans:
        if not plan.strategy.is_search:
            decisions.append((plan, None))
            continue
        try:
            log = decided(predicted(plan, question(plan, catalog)), {}, 0.0)
        except TunemarkError as error:
            errors.append(error)
            continue
        assert log.chosen is not None, "something fits"
        decisions.append((plan_of(plan, log.chosen, catalog), log))
    predictions = []
    for point in absent:
        one = elsewhere(point, catalog)
        q = one.question
        found = search(q.work, q.space, q.ground, refusal=q.refusal, requested=q.requested, free=q.free)
        if found.ranked:
            predictions.append((one, decided(found, {}, 0.0)))
        else:
            failure = infeasible(one.title, found, q)
            errors.append(failure)
            predictions.append((one, replace(found.log, notes=(f"{failure.what}: {failure.why}; {failure.next}",))))
    if json:
        for plan, found_log in decisions:
            searched = {} if found_log is None else {"search": _search_row(found_log)}
            print(json_module.dumps({**row(plan), **searched}, allow_nan=False))
        for one, log in predictions:
            print(json_module.dumps(_prediction_row(one, log), allow_nan=False))
    else:
        _print_tables(decisions, predictions)
    for each in errors:
        print(f"tunemark: {each}", file=sys.stderr)
    return 2 if errors else 0


def _search_row(log: SearchLog) -> dict[str, Any]:
    chosen = log.chosen
    return {**asdict(log), "chosen": None if chosen is None else asdict(chosen), "because": because(log)}


def _prediction_row(one: Elsewhere, log: SearchLog) -> dict[str, Any]:
    chosen = log.chosen
    rate = chosen.predicted_tokens_per_s if chosen else None
    return {
        "model": one.model.name,
        "device": one.chip,
        "size": one.size,
        "ranks": one.size * one.dies,
        "is_present": False,
        "sequence": one.sequence,
        "global_batch": one.global_batch,
        "precision": one.precision,
        "optimizer": one.optimizer,
        "method": one.method,
        "fits": chosen is not None,
        "strategy": chosen.strategy if chosen else None,
        "micro_batch": chosen.micro_batch if chosen else None,
        "checkpointing": chosen.checkpointing if chosen else None,
        "gradient_accumulation": chosen.gradient_accumulation if chosen else None,
        "slot_tokens_per_s": rate,
        "slot_tokens_per_s_low": chosen.low if chosen else None,
        "slot_tokens_per_s_high": chosen.high if chosen else None,
        "slot_tokens_per_s_per_device": rate / one.size if rate else None,
        "step_time_s": sum(chosen.seconds.values()) if chosen else None,
        "memory_bytes": chosen.memory_bytes if chosen else None,
        "search": _search_row(log),
    }


def _print_tables(
    decisions: Sequence[tuple[Plan, SearchLog | None]], predictions: Sequence[tuple[Elsewhere, SearchLog]]
) -> None:
    if decisions:
        print_plans([plan for plan, _ in decisions], json=False)
    if predictions:
        print(_table(predictions))
    if not decisions and not predictions:
        return
    texts = [(f"{p.spec.model} {p.spec.device}:{p.spec.size} {p.spec.strategy}", log) for p, log in decisions if log]
    texts += [(one.title, log) for one, log in predictions]
    for title, log in texts:
        print(f"\n{search_text(log, title)}")
        if words := because(log):
            print(f"\n{escaped(words)}")
        for note in log.notes:
            print(f"\n{escaped(note)}")
    print(
        "\nPredicted, not measured: rates count slots of the whole job, bounds are two standard deviations of the "
        "prediction. Memory is of the fullest rank, with its upper bound where that exceeds the capacity."
    )


def _table(predictions: Sequence[tuple[Elsewhere, SearchLog]]) -> str:
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
        rows.append([*cells, one.chip, str(one.size), *_cells(one, log.chosen, log.memory_bytes)])
    return "\n".join(["; ".join(shared), "", markdown(header, rows, len(own) + 4)])


def _cells(one: Elsewhere, chosen: Option | None, capacity: float | None) -> list[str]:
    ranks, batch = f"{one.size * one.dies:,}", f"{one.global_batch:,}"
    if chosen is None or chosen.predicted_tokens_per_s is None or chosen.low is None or chosen.high is None:
        return ["does not fit", "-", ranks, batch, *["-"] * 5]
    rate = f"{rounded(chosen.predicted_tokens_per_s)} ({rounded(chosen.low)} to {rounded(chosen.high)})"
    return [
        escaped(chosen.strategy), chosen.checkpointing, ranks, batch, str(chosen.micro_batch), rate,
        rounded(chosen.predicted_tokens_per_s / one.size), significant(sum(chosen.seconds.values()), 3),
        memory_words(chosen, capacity),
    ]  # fmt: skip
