"""`tunemark run`: measure every point of an experiment. Results go to standard output, progress to standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment
from tunemark.cli.messages import print_message, print_remarks
from tunemark.cli.plan import print_plans_and_searches
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.experiment import Experiment, Plan, make_grid_points, make_plans
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.runner.run_experiment import ExperimentResults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = parse_experiment(args)
    plans = make_plans(make_grid_points(experiment), catalog)
    print_remarks(catalog, plans)
    if experiment.prices is not None:
        from tunemark.analysis.prices import read_prices  # only needed with prices

        read_prices(experiment.prices)
    if experiment.dry_run:
        return print_plans_and_searches(plans, catalog, json=experiment.json)

    # Heavy and not needed by --dry-run.
    from tunemark.report import runs_table, verdict_lines
    from tunemark.results import encode_result

    results = measure_with_progress(experiment, plans, catalog)
    if experiment.json:
        for result in results.runs:
            print(encode_result(result))
    elif results.runs:
        print(runs_table(results.runs))
        for line in verdict_lines(results.runs):
            print(line)
    if results.not_reported is not None:
        print_message(f"tunemark: {results.not_reported}")
    elif experiment.output and results.runs:
        print_message(f"the report is in {experiment.output.rstrip('/')}/")
    if results.is_interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.USAGE if results.not_reported is not None else exit_code_of_results(results.runs)


def measure_with_progress(experiment: Experiment, plans: Sequence[Plan], catalog: Catalog) -> ExperimentResults:
    """Measure all plans with a progress line per attempt on standard error; an interruption is reported there too."""
    # Heavy and not needed by --dry-run.
    from tunemark.cli.progress_line import ProgressLine
    from tunemark.launch import AttemptEnd
    from tunemark.runner.interruption import sigterm_as_interrupt
    from tunemark.runner.observer import RunObserver, run_title
    from tunemark.runner.preparation import PreparedRun
    from tunemark.runner.run_experiment import run_experiment

    lines: dict[str, ProgressLine] = {}

    def attempt(ready: PreparedRun, number: int, of: int) -> None:
        spec = ready.plan.spec
        words = f"{run_title(ready.plan)}, attempt {number} of {of}"
        lines[ready.plan.run_id] = ProgressLine(
            words, steps=spec.steps, warmup=spec.warmup, budget_s=spec.budget, rewrite=ready.is_alone
        )

    def record(ready: PreparedRun, row: Mapping[str, Any]) -> None:
        lines[ready.plan.run_id].observe(row)

    def ended(ready: PreparedRun, end: AttemptEnd) -> None:
        words = f"{end.status}, ended by {end.reason}"
        lines[ready.plan.run_id].close(words if end.status == "ok" else f"{words}: {end.evidence}")

    with sigterm_as_interrupt(), redirect_stdout(sys.stderr):  # only results go to standard output
        results = run_experiment(
            experiment, plans, catalog, RunObserver(message=print_message, attempt=attempt, record=record, ended=ended)
        )
    if results.is_interrupted:
        print_message("interrupted: every finished step and run is kept; the same command continues from here")
    return results
