"""`tunemark run`: measure every point of an experiment. Results go to standard output, progress to standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from tunemark.cli.plan import experiment_arguments, experiment_from, print_resolved
from tunemark.experiment import Experiment, Plan, points, resolve_all
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.measure import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = experiment_from(args)
    plans = resolve_all(points(experiment), catalog)
    for words in dict.fromkeys([*catalog.remarks(), *(note for plan in plans for note in plan.notes)]):
        _log(words)
    if experiment.prices is not None:
        from tunemark.analysis.prices import read_prices  # only needed with prices

        read_prices(experiment.prices)
    if experiment.dry_run:
        return print_resolved(plans, catalog, json=experiment.json)

    # Heavy and not needed by --dry-run.
    from tunemark.report import exit_code, markdown_table, verdict_lines
    from tunemark.results import encode

    results = carried_out(experiment, plans, catalog)
    if experiment.json:
        for result in results.runs:
            print(encode(result))
    elif results.runs:
        print(markdown_table(results.runs))
        for line in verdict_lines(results.runs):
            print(line)
    if results.not_reported is not None:
        _log(f"tunemark: {results.not_reported}")
    elif experiment.output and results.runs:
        _log(f"the report is in {experiment.output.rstrip('/')}/")
    if results.is_interrupted:
        return 130
    return 2 if results.not_reported is not None else exit_code(results.runs)


def carried_out(experiment: Experiment, plans: Sequence[Plan], catalog: Catalog) -> Results:
    """Measure all plans with a progress line per attempt on standard error; an interruption is reported there too."""
    # Heavy and not needed by --dry-run.
    from tunemark.cli.live import LiveLine
    from tunemark.launch import Ended
    from tunemark.measure import measure
    from tunemark.sweep import Ready, Watch, terminable, title

    lines: dict[str, LiveLine] = {}

    def attempt(ready: Ready, number: int, of: int) -> None:
        spec = ready.plan.spec
        words = f"{title(ready.plan)}, attempt {number} of {of}"
        is_alone = ready.launching.at_once == 1
        lines[ready.plan.run_id] = LiveLine(
            words, steps=spec.steps, warmup=spec.warmup, budget_s=spec.budget, rewrite=is_alone
        )

    def record(ready: Ready, row: Mapping[str, Any]) -> None:
        lines[ready.plan.run_id].observe(row)

    def ended(ready: Ready, end: Ended) -> None:
        words = f"{end.status}, ended by {end.reason}"
        lines[ready.plan.run_id].close(words if end.status == "ok" else f"{words}: {end.evidence}")

    with terminable(), redirect_stdout(sys.stderr):  # only results go to standard output
        results = measure(experiment, plans, catalog, Watch(message=_log, attempt=attempt, record=record, ended=ended))
    if results.is_interrupted:
        _log("interrupted: every finished step and run is kept; the same command continues from here")
    return results


def _log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
