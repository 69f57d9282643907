"""`tunemark show`: everything about one run, as its report says it."""

from __future__ import annotations

import argparse

from tunemark.cli.messages import print_json
from tunemark.cli.run_arguments import RUNS_HELP, read_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadStore
from tunemark.exit_codes import exit_code_of_results
from tunemark.plugin import Catalog
from tunemark.plugin.catalog import load_object

EXAMPLES = (
    ("tunemark show 1f3a", "the run in runs/ whose id begins so"),
    ("tunemark show report:1f3a --json", "a run of a report, with every field"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=RUNS_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object: all fields of the result")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.report import make_report
    from tunemark.results import encode_result

    catalog = Catalog()
    found = read_runs(args.run, catalog)
    if len(found) > 1:
        ids = ", ".join(result.run_id for result in found)
        first = f"{args.run}:{found[0].run_id}"
        raise BadStore(what=f"{args.run} holds {len(found)} runs", next=f"name one, such as {first}: {ids[:400]}")
    if args.json:
        print_json(encode_result(found[0]))
    else:
        render = load_object(catalog.formats()["markdown"].render)
        print_result(bytes(render(make_report(found))).decode())
    return exit_code_of_results(found)
