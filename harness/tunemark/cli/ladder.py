"""`tunemark ladder`: from plain settings to a recipe a rung at a time, and what each rung is worth."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment
from tunemark.cli.messages import print_message, print_remarks
from tunemark.cli.plan import print_plans_and_searches
from tunemark.cli.run import add_quiet, watch_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import TunemarkError
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.plugin import Catalog

EXAMPLES = (
    ("tunemark ladder --model mistral-tiny -o ladder", "what each rung of the recipe `tuned` is worth here"),
    ("tunemark ladder experiment.toml --repeats 5", "with narrower intervals"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)
    add_quiet(parser)


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = parse_experiment(args)
    # Heavy, and not needed by --help.
    from tunemark.runner.ladder import climb_ladders, plan_ladders

    ladders = plan_ladders(experiment, catalog)
    plans = [plan for each in ladders for plan in (each.base, *each.plans)]
    print_remarks(catalog, plans)
    for each in ladders:
        for rung in each.rungs:
            if rung.reason:
                print_message(f"{each.recipe}: {rung.setting} {rung.value} is not climbed: {rung.reason}")
    if experiment.dry_run:
        return print_plans_and_searches(plans, catalog, experiment)

    import msgspec

    from tunemark.analysis.ladder import list_ladders
    from tunemark.loading import load_traces
    from tunemark.report import verdict_lines, write_report
    from tunemark.report.ladder_text import ladder_note, ladder_text
    from tunemark.report.translation import make_translator, parse_language
    from tunemark.results import Store

    output = Path(experiment.output) if experiment.output else None
    if output is not None:
        Store.prove_folder(output)
    with watch_runs(plans, quiet=args.quiet) as observer:
        climbed = climb_ladders(ladders, experiment, catalog, observer)
    if climbed.is_interrupted:
        print_message("interrupted: every finished step and run is kept; the same command continues from here")
    found = list_ladders(climbed.studies, climbed.runs)
    code = exit_code_of_results(climbed.runs)
    if output is not None and climbed.runs:
        language = parse_language(experiment.language)
        traces = load_traces([Path(experiment.store)], climbed.runs)
        try:
            write_report(
                climbed.runs,
                output,
                catalog,
                traces=traces,
                studies=climbed.studies,
                language=language,
                is_redacted=not experiment.no_redact,
            )
            print_message(f"the report is in {experiment.output}")
        except TunemarkError as error:
            # What was measured is printed all the same.
            print_message(f"tunemark: {error}")
            code = ExitCode.USAGE
    english = make_translator("en")
    for ladder in found:
        if experiment.json:
            print(msgspec.json.encode(ladder).decode())
        else:
            print_result(ladder_text(ladder, english))
    if not experiment.json:
        print_result("\n".join([ladder_note(english), "", *verdict_lines(climbed.runs)]))
    return ExitCode.INTERRUPTED if climbed.is_interrupted else code
