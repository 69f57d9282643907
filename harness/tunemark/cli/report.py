"""`tunemark report`: write a report of finished runs, from stores and from earlier reports. Nothing is measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.run_arguments import load_folders
from tunemark.cli.terminal import print_result
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.plugin import Catalog

EXAMPLES = (
    ("tunemark report runs -o report", "everything in runs/"),
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
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="language of the report (default: en)")
    parser.add_argument(
        "--prices",
        metavar="FILE",
        help="prices per hour, TOML or CSV, by device or chip; adds the cost of a million tokens to the report",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line instead of a table")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.analysis.prices import read_prices
    from tunemark.report import claims_table, runs_table, verdict_lines, write_report
    from tunemark.results import Store, encode_claim, encode_result

    catalog = Catalog()
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
