"""`tunemark plan`: every run of an experiment and its cost, as a Markdown table. Nothing is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment, print_unused
from tunemark.cli.messages import print_message, print_remarks
from tunemark.cli.plan_details import make_details
from tunemark.cli.plan_table import print_plans
from tunemark.errors import TunemarkError
from tunemark.exit_codes import ExitCode
from tunemark.experiment import Experiment, GridPoint, Plan, make_grid_points
from tunemark.experiment.planning import make_possible_plans
from tunemark.plugin import Catalog

EXAMPLES = (
    ("tunemark plan --model mistral-7b --device H100:8 --strategy auto", "what is predicted for chips not here"),
    ("tunemark plan --dataset alpaca:path=FILE --epochs 3 --prices prices.toml", "how long, and what it costs"),
    ("tunemark plan --model mistral-7b,llama-3-8b --sequence 2048,4096 --json", "four runs as lines of JSON"),
)

# What only a measurement uses.
_UNUSED = ("trials", "verify", "repeats", "timeout", "export", "max_restarts", "redo", "no_wait", "no_measure_peak",
           "store", "output", "language", "no_redact")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)
    words = "print what else is known: the layouts that each search considered, and why others were left out"
    parser.add_argument("--verbose", action="store_true", help=words)


def execute(args: argparse.Namespace) -> int:
    experiment = parse_experiment(args)
    print_unused(experiment, "plan", _UNUSED, "nothing is measured and nothing is written")
    catalog = Catalog()
    all_points, absent = make_grid_points(experiment), []
    if any(strategy.partition(":")[0] in catalog.search_names() for strategy in experiment.axes["strategy"]):
        from tunemark.predict.absent_device import is_absent_device  # only needed for a search

        absent = [point for point in all_points if is_absent_device(point, catalog)]
    points = [point for point in all_points if all(point is not other for other in absent)]
    plans, misfits = make_possible_plans(points, catalog)
    if misfits and not plans and not absent:
        raise misfits[0]
    from tunemark.launch.interpreter import check_plans  # starts processes, not needed by --help

    print_remarks(catalog, plans, check_plans(plans))
    return print_plans_and_searches(plans, catalog, experiment, absent=absent, misfits=misfits, verbose=args.verbose)


def print_plans_and_searches(
    plans: Sequence[Plan],
    catalog: Catalog,
    experiment: Experiment,
    *,
    absent: Sequence[GridPoint] = (),
    misfits: Sequence[TunemarkError] = (),
    verbose: bool = False,
) -> int:
    """Print plans, each with a predicted layout if its strategy is a search, and searches for the points in `absent`,
    whose chips this machine does not have. misfits: why other points cannot be planned. Returns the exit code: of a
    mistake only where nothing can be laid out."""
    details = make_details(experiment, catalog)
    if any(plan.strategy.is_search for plan in plans) or absent:
        from tunemark.cli.search_output import print_searches  # only needed for a search

        errors, absent_errors = print_searches(plans, absent, catalog, details, json=experiment.json, verbose=verbose)
    else:
        print_plans(plans, details, json=experiment.json)
        errors, absent_errors = [], []
    # As a run out of memory, what does not fit is a row, and the answer to a question.
    is_nothing_left = len(errors) + len(absent_errors) == len(plans) + len(absent)
    # Where something is left, those of absent chips stand in the table.
    unfit = [*misfits, *errors, *(absent_errors if is_nothing_left else ())]
    for words in dict.fromkeys(map(str, [*unfit, *details.errors])):
        print_message(f"tunemark: {words}")
    return ExitCode.USAGE if (unfit and is_nothing_left) or details.errors else ExitCode.SUCCESS
