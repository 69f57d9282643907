"""`tunemark query`: SQL over finished runs, on a database in memory. Nothing is written."""

from __future__ import annotations

import argparse
import json
import sqlite3
from typing import Any

from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_significant
from tunemark.plugin import Catalog

EXAMPLES = (
    (
        'tunemark query "SELECT model, strategy_requested, max(tokens_per_s) FROM runs GROUP BY 1, 2" runs',
        "the fastest run of each model and strategy",
    ),
    (
        "tunemark query \"SELECT rule, count(*) FROM findings WHERE severity != 'note' GROUP BY rule\" runs report",
        "what was found how often",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "a SELECT over the tables runs, attempts, findings and windows, which share the column run_id"
    parser.add_argument("sql", metavar="SQL", help=words)
    words = "stores (runs/), or report folders written by -o (default: runs)"
    parser.add_argument("folders", nargs="*", metavar="DIR", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object per row instead of a table")


def execute(args: argparse.Namespace) -> int:
    from tunemark.cli.run_arguments import load_folders
    from tunemark.exporting import make_exported_run
    from tunemark_exporters.tables import open_database

    found = load_folders(args.folders or ["runs"], Catalog())
    connection = open_database([make_exported_run(r, found.traces.get(r.run_id, ())) for r in found.results])
    try:
        connection.execute("PRAGMA query_only = ON")
        cursor = connection.execute(args.sql)
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
    except sqlite3.Error as error:
        raise BadExperiment(
            what=f"the query cannot be answered: {error}", why=args.sql, next=_list_columns(connection)
        ) from error
    finally:
        connection.close()
    if args.json:
        for row in rows:
            print(json.dumps(dict(zip(names, row, strict=True))))
    elif rows:
        numeric = [all(isinstance(row[at], (int, float, type(None))) for row in rows) for at in range(len(names))]
        sides = "".join(">" if is_number else "<" for is_number in numeric)
        print_result(markdown_table(list(map(escape, names)), [list(map(_cell, row)) for row in rows], sides))
    else:
        print_result("no rows")
    return 0


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return format_significant(value) if isinstance(value, float) else escape(str(value))


def _list_columns(connection: sqlite3.Connection) -> str:
    tables = ("runs", "attempts", "findings", "windows")
    columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    return "the tables: " + "; ".join(f"{name} ({', '.join(found)})" for name, found in columns.items())
