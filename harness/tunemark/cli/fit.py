"""`tunemark fit`: the largest micro-batch that fits in memory and the fastest one, by prediction and by measurement."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment
from tunemark.cli.messages import print_message, print_remarks
from tunemark.cli.plan import print_plans_and_searches
from tunemark.cli.run import add_quiet, watch_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadStore, TunemarkError
from tunemark.exit_codes import ExitCode
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis.fit import FitMap
    from tunemark.runner.fit import PlannedFit

EXAMPLES = (
    ("tunemark fit --model mistral-tiny --memory 4 -o fit", "within 4 GiB of this machine's memory"),
    (
        "tunemark fit --model mistral-tiny --sequence 512,1024,2048 --answer largest.toml",
        "a map of micro-batch x sequence, and its answer as files",
    ),
    ("tunemark fit --model mistral-tiny --micro-batch 1,2,4,8", "these micro-batches alone"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment_arguments(parser)
    add_quiet(parser)
    words = "where to write the fastest micro-batch as an experiment file (default: fit.toml in the store)"
    parser.add_argument("--answer", metavar="FILE", help=words)


def execute(args: argparse.Namespace) -> int:
    catalog = Catalog()
    experiment = parse_experiment(args)
    # Heavy, and not needed by --help.
    from tunemark.doctor import read_available_memory
    from tunemark.runner.fit import measure_fit, plan_fit, refuse_unknown_limit

    planned = plan_fit(experiment, catalog, read_available_memory())
    plans = [row.first for row in planned.rows]
    print_remarks(catalog, plans)
    print_message(f"the limit of memory: {planned.limit}")
    if experiment.dry_run:
        return print_plans_and_searches(plans, catalog, experiment)
    refuse_unknown_limit(planned)

    import msgspec

    from tunemark.analysis.fit import map_fit
    from tunemark.loading import load_traces
    from tunemark.report import write_report
    from tunemark.report.fit_text import fit_text
    from tunemark.report.translation import make_translator, parse_language
    from tunemark.results import Store

    output = Path(experiment.output) if experiment.output else None
    if output is not None:
        Store.prove_folder(output)
    with watch_runs(plans, quiet=args.quiet) as observer:
        measured = measure_fit(planned, experiment, catalog, observer)
    if measured.is_interrupted:
        print_message("interrupted: every finished run is kept; the same command continues from here")
    found = map_fit(measured.study, {result.run_id: result for result in measured.runs})
    is_reported = True
    if output is not None and measured.runs:
        language = parse_language(experiment.language)
        traces = load_traces([Path(experiment.store)], measured.runs)
        try:
            write_report(
                measured.runs,
                output,
                catalog,
                traces=traces,
                studies=[measured.study],
                language=language,
                is_redacted=not experiment.no_redact,
            )
            print_message(f"the report is in {experiment.output}")
        except TunemarkError as error:
            # What was measured is printed all the same.
            print_message(f"tunemark: {error}")
            is_reported = False
    if experiment.json:
        print(msgspec.json.encode(found).decode())
    else:
        print_result(fit_text(found, make_translator("en")))
    answers = _write_answers(planned, found, Path(args.answer or Path(experiment.store) / "fit.toml"))
    if measured.is_interrupted:
        return ExitCode.INTERRUPTED
    if not is_reported:
        return ExitCode.USAGE
    # That something does not fit is an answer; that nothing does is none.
    return ExitCode.SUCCESS if len(answers) == len(planned.rows) else ExitCode.NOT_OK


def _write_answers(planned: PlannedFit, found: FitMap, path: Path) -> list[Path]:
    """Write the fastest micro-batch of each row as an experiment file: FILE, or with several rows FILE-1 and so on."""
    from tunemark.report.fit_text import fit_sentence
    from tunemark.report.translation import make_translator
    from tunemark.runner.fit import make_answer

    written: list[Path] = []
    for number, (row, measured) in enumerate(zip(planned.rows, found.rows, strict=False), 1):
        if measured.fastest is None:
            continue
        file = path if len(planned.rows) == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        remarks = [
            f"{found.title}: found by `tunemark fit` within {found.limit}.",
            fit_sentence(measured, make_translator("en")),
        ]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(make_answer(row, measured.fastest, remarks), encoding="utf-8")
        except OSError as error:
            raise BadStore(what=f"cannot write {file}", why=str(error), next="--answer FILE elsewhere") from error
        written.append(file)
        print_message(f"the answer is in {file}")
    return written
