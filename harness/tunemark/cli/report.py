"""`tunemark report`: arrange finished runs of stores and of former reports. Nothing is measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunemark.plugin import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store (runs/), or a folder that -o wrote")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write report.html, its charts as SVG and PNG files, report.md, report.csv and runs.jsonl there",
    )
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="of the report (default: en)")
    parser.add_argument(
        "--prices",
        metavar="FILE",
        help="prices of an hour, TOML or CSV, by device or chip: the report then says what a million tokens cost",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a table")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.analysis.prices import read_prices
    from tunemark.report import claims_table, exit_code, markdown_table, verdict_lines, write
    from tunemark.report.reading import find
    from tunemark.results import Store, encode, encode_imported

    catalog = Catalog()
    prices = read_prices(args.prices) if args.prices is not None else None
    found = find([Path(name) for name in args.folders], catalog)
    for each in found.unread:
        print(f"not read: {each.place}: {each.why}", file=sys.stderr)
    if args.output is not None:
        output = Path(args.output)
        Store.prove_folder(output)
        write(
            found.results,
            output,
            catalog,
            found.imported,
            found.traces,
            unread=found.unread,
            prices=prices,
            language=args.language,
        )
        print(f"the report is in {output}", file=sys.stderr)
    if args.json:
        for result in found.results:
            print(encode(result))
        for row in found.imported:
            print(encode_imported(row))
    else:
        if found.results or not found.imported:
            print(markdown_table(found.results))
        for line in verdict_lines(found.results):
            print(line)
        if found.imported:
            print(claims_table(found.imported))
    if not found.results and not found.imported:
        print("there is no run here: `tunemark run` measures one", file=sys.stderr)
        return 3
    # What could not be read is a verdict that nobody has.
    return exit_code(found.results) or (3 if found.unread else 0)
