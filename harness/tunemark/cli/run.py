"""`tunemark run`: measure every point of an experiment. Results go to standard output, progress to standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment, print_unused
from tunemark.cli.messages import print_json, print_message, print_remarks
from tunemark.cli.plan import print_plans_and_searches
from tunemark.cli.terminal import print_result
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.experiment import Experiment, Plan, make_grid_points, make_plans
from tunemark.experiment.settings import PredictionSettings
from tunemark.plugin import Catalog
from tunemark_worker.training_settings import read_settings

if TYPE_CHECKING:
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.run_experiment import ExperimentResults

EXAMPLES = (
    ("tunemark run", "a small model on this machine, for about a minute"),
    (
        "tunemark run --model mistral-7b --device cuda:1,2 --strategy ddp,fsdp -o out",
        "four runs and a report",
    ),
    ("tunemark run experiment.toml --repeats 5", "a file of settings; flags override it"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)
    add_quiet(parser)
    add_verbose(parser)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    words = "print what the worker processes print, and on a search what was considered"
    parser.add_argument("--verbose", action="store_true", help=words)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print no progress, only what fails and the results")


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = parse_experiment(args)
    plans = make_plans(make_grid_points(experiment), catalog)
    from tunemark.launch.interpreter import check_plans  # starts processes, not needed by --help

    # Without --dry-run, preparing the runs does it.
    print_remarks(catalog, plans, check_plans(plans) if experiment.dry_run else ())
    if experiment.prices is not None:
        from tunemark.analysis.prices import read_prices  # only needed with prices

        read_prices(experiment.prices)
    if experiment.dry_run:
        return print_plans_and_searches(plans, catalog, experiment, verbose=args.verbose)
    _print_unused(experiment, catalog)

    # Heavy and not needed by --dry-run.
    from tunemark.report import runs_table, verdict_lines
    from tunemark.results import encode_result

    results = measure_with_progress(experiment, plans, catalog, quiet=args.quiet, verbose=args.verbose)
    if experiment.json:
        for result in results.runs:
            print_json(encode_result(result))
    elif results.runs:
        print_result("\n".join([runs_table(results.runs), *verdict_lines(results.runs)]))
    if results.not_reported is not None:
        print_message(f"tunemark: {results.not_reported}")
    elif experiment.output and results.runs:
        print_message(f"the report is in {experiment.output.rstrip('/')}/")
    if results.is_interrupted:
        return ExitCode.INTERRUPTED
    is_refused = results.refused is not None or results.not_reported is not None
    return ExitCode.USAGE if is_refused else exit_code_of_results(results.runs)


def _print_unused(experiment: Experiment, catalog: Catalog) -> None:
    """Say which flags change nothing here."""
    if experiment.output is None:
        print_unused(experiment, "run", ("language", "prices", "no_redact"), "no report is written without -o")
    if not any(strategy.partition(":")[0] in catalog.search_names() for strategy in experiment.axes["strategy"]):
        names = ("trials", *(setting.name for setting in read_settings(PredictionSettings)))
        print_unused(experiment, "run", names, "no strategy searches for a layout, and nothing is predicted")


def measure_with_progress(
    experiment: Experiment, plans: Sequence[Plan], catalog: Catalog, *, quiet: bool = False, verbose: bool = False
) -> ExperimentResults:
    """Measure all plans with their progress on standard error, where an interruption is reported too. quiet: report
    only what fails. verbose: report what the workers print."""
    from tunemark.runner.run_experiment import run_experiment  # heavy and not needed by --dry-run

    followed = Path(experiment.store) if verbose else None
    with watch_runs(plans, quiet=quiet, followed=followed) as observer:
        results = run_experiment(experiment, plans, catalog, observer)
    if results.is_interrupted:
        print_message("interrupted: every finished step and run is kept; the same command continues from here")
    if results.refused is not None:
        print_message(f"tunemark: {results.refused}\nevery finished run is kept; the same command continues from here")
    return results


@contextmanager
def watch_runs(plans: Sequence[Plan], *, quiet: bool = False, followed: Path | None = None) -> Iterator[RunObserver]:
    """Show the progress of these plans on standard error while they are measured, and let nothing else reach standard
    output. quiet: show only what fails. followed: a store whose workers' output is shown, too."""
    # Heavy and not needed by --dry-run.
    from tunemark.cli.attempt_progress import AttemptProgress
    from tunemark.cli.progress_display import make_progress_display
    from tunemark.cli.worker_output import WorkerOutput
    from tunemark.launch import AttemptEnd
    from tunemark.runner.interruption import sigterm_as_interrupt
    from tunemark.runner.observer import RunObserver, run_title
    from tunemark.runner.preparation import PreparedRun

    display = make_progress_display([plan.run_id for plan in plans], quiet=quiet)

    def attempt(ready: PreparedRun, number: int, of: int) -> None:
        spec = ready.plan.spec
        title = f"{run_title(ready.plan)}, attempt {number} of {of}"
        progress = AttemptProgress(title, steps=spec.steps, warmup=spec.warmup, budget_s=spec.budget)
        display.start_attempt(ready.plan.run_id, progress, number=number, of=of)

    def record(ready: PreparedRun, row: Mapping[str, Any]) -> None:
        display.observe(ready.plan.run_id, row)

    def ended(ready: PreparedRun, end: AttemptEnd) -> None:
        words = f"{end.status}, ended by {end.reason}"
        display.end_attempt(ready.plan.run_id, words if end.status == "ok" else f"{words}: {end.evidence}")

    observer = RunObserver(message=display.message, attempt=attempt, record=record, ended=ended)
    output = WorkerOutput(followed, display.message) if followed else nullcontext()
    # Only results go to standard output.
    with sigterm_as_interrupt(), redirect_stdout(sys.stderr), display, output:
        yield observer
