"""`tunemark report`: arrange finished runs of stores and of former reports. Nothing is measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunemark.errors import BadStore
from tunemark.plugin import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store (runs/), or a folder that -o wrote")
    parser.add_argument("-o", "--output", metavar="DIR", help="write runs.jsonl, report.md and report.csv there")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a table")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.report import claims_table, exit_code, markdown_table, read, verdict_line, write
    from tunemark.report.write import RUNS
    from tunemark.results import Imported, Result, Store, encode, encode_imported, read_imported

    catalog = Catalog()
    results: list[Result] = []
    imported: list[Imported] = []
    for name in args.folders:
        folder = Path(name)
        found = read(folder) if (folder / RUNS).exists() else Store(folder).results(catalog)
        claims = read_imported(folder)
        if not found and not claims:
            raise BadStore(
                what=f"{folder} holds no runs",
                why=f"it has neither {RUNS} nor any attempt",
                next="give the folder of `tunemark run --store` (by default runs) or of its -o",
            )
        # A run that two folders have in the very same form is one run.
        results += [result for result in found if result not in results]
        imported += [row for row in claims if row not in imported]
    if args.output is not None:
        output = Path(args.output)
        Store.prove_folder(output)
        write(results, output, catalog, imported)
        print(f"the report is in {output}", file=sys.stderr)
    if args.json:
        for result in results:
            print(encode(result))
        for row in imported:
            print(encode_imported(row))
    else:
        if results:
            print(markdown_table(results))
        for result in results:
            print(verdict_line(result))
        if imported:
            print(claims_table(imported))
    return exit_code(results)
