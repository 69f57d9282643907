"""`tunemark export`: copy finished runs to a tracker or to files for queries. Nothing is measured."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from tunemark.cli.messages import print_message
from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog

EXAMPLES = (
    ("tunemark export runs --to tensorboard -o logs", "then `tensorboard --logdir logs`"),
    ("tunemark export runs --to parquet -o tables", "then `duckdb -c \"SELECT * FROM 'tables/runs.parquet'\"`"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store (runs/), or a report folder written by -o")
    parser.add_argument("--to", required=True, metavar="NAME", help="an exporter (`tunemark list exporters`)")
    words = "the folder or file to write, as the exporter needs it"
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help=words)
    words = "hide names of hosts and users, folders and addresses (default); --no-redact shows them"
    parser.add_argument("--redact", action=argparse.BooleanOptionalAction, default=True, help=words)


def execute(args: argparse.Namespace) -> int:
    from tunemark.cli.run_arguments import load_folders
    from tunemark.exporting import export_runs
    from tunemark.report.files import redact_results

    catalog = Catalog()
    exporter = catalog.exporter(args.to)
    found = load_folders(args.folders, catalog)
    if not found.results:
        raise BadExperiment(what=f"there are no runs in {', '.join(args.folders)}", next="`tunemark run` measures them")
    results = redact_results(found.results) if args.redact else found.results
    with redirect_stdout(sys.stderr):  # trackers talk
        lines = export_runs(exporter, results, found.traces, Path(args.output))
    for line in lines:
        print_message(line)
    return 0
