"""`tunemark report`: write a report of finished runs, from stores and from earlier reports. Nothing is measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.run_arguments import load_folders, read_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.report.report import Section

EXAMPLES = (
    ("tunemark report runs -o report", "everything in runs/"),
    ("tunemark report before after --side-by-side -o both", "the same runs in two stores, with ratios"),
    ("tunemark report runs --timeline -o history", "the rate of each run over days and commits"),
    ("tunemark report january/ february/ -o both --language ko", "two reports in one, in Korean"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store (runs/), or a report folder written by -o")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write report.html, its charts as SVG and PNG files, report.md, report.csv and runs.jsonl to DIR",
    )
    words = "of two DIRs: lay their runs side by side, each with the ratio of its rates"
    parser.add_argument("--side-by-side", action="store_true", help=words)
    words = "show the rate of every series of a run over time, with the changes of its level"
    parser.add_argument("--timeline", action="store_true", help=words)
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="language of the report (default: en)")
    parser.add_argument(
        "--prices",
        metavar="FILE",
        help="prices per hour, TOML or CSV, by device or chip; adds the cost of a million tokens to the report",
    )
    words = "hide names of hosts and users, folders and addresses in what -o writes (default); --no-redact shows them"
    parser.add_argument("--redact", action=argparse.BooleanOptionalAction, default=True, help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line instead of a table")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.analysis.prices import read_prices
    from tunemark.report import claims_table, runs_table, verdict_lines, write_report
    from tunemark.results import Store, encode_claim, encode_result

    catalog = Catalog()
    more = _make_more_sections(args, catalog)
    prices = read_prices(args.prices) if args.prices is not None else None
    found = load_folders(args.folders, catalog)
    if args.output is not None:
        output = Path(args.output)
        Store.prove_folder(output)
        write_report(
            found.results,
            output,
            catalog,
            found.imported,
            found.traces,
            unread=found.unread,
            studies=found.studies,
            prices=prices,
            language=args.language,
            more=more,
            is_redacted=args.redact,
        )
        print_message(f"the report is in {output}")
    if args.json:
        for result in found.results:
            print_json(encode_result(result))
        for row in found.imported:
            print_json(encode_claim(row))
    else:
        if found.results or not found.imported:
            print_result(runs_table(found.results))
        for line in verdict_lines(found.results):
            print_result(line)
        if found.imported:
            print_result(claims_table(found.imported))
    if not found.results and not found.imported:
        print_message("there are no runs here: `tunemark run` measures them")
        return ExitCode.UNKNOWN
    # A run that could not be read has an unknown verdict.
    return exit_code_of_results(found.results) or (ExitCode.UNKNOWN if found.unread else ExitCode.SUCCESS)


def _make_more_sections(args: argparse.Namespace, catalog: Catalog) -> list[Section]:
    """The sections that flags ask for."""
    from tunemark.report.side_by_side import make_side_by_side_section
    from tunemark.report.timeline_section import make_timeline_section
    from tunemark.report.translation import make_translator

    tr = make_translator(args.language)
    for flag, is_given in (("--side-by-side", args.side_by_side), ("--timeline", args.timeline)):
        if is_given and args.output is None:
            raise BadExperiment(what=f"{flag} has no effect without -o", next="name the report's folder: -o DIR")
    found = []
    if args.side_by_side:
        if len(args.folders) != 2:
            raise BadExperiment(
                what=f"{len(args.folders)} folders cannot be laid side by side", next="give two: before and after"
            )
        a, b = (read_runs(name, catalog) for name in args.folders)
        found.append(make_side_by_side_section(a, b, (args.folders[0], args.folders[1]), tr))
    if args.timeline:
        every = [result for name in args.folders for result in read_runs(name, catalog, every_series=True)]
        found.append(make_timeline_section(every, tr))
    return found
