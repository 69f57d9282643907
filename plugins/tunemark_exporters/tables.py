"""Runs as tables for queries: Parquet files, or one SQLite database. The tables are `runs`, `attempts`, `findings` and
`windows`, which share the column run_id."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadExperiment
from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import flatten_run, list_attempts, list_findings, list_windows

_Columns = Mapping[str, Sequence[Any]]


def make_tables(runs: Sequence[ExportedRun]) -> dict[str, _Columns]:
    """The columns of each table by name; None is unknown."""
    rows = {
        "runs": [flatten_run(run) for run in runs],
        "attempts": [row for run in runs for row in list_attempts(run)],
        "findings": [row for run in runs for row in list_findings(run)],
        "windows": [row for run in runs for row in list_windows(run)],
    }
    return {name: _make_columns(found) for name, found in rows.items()}


def _make_columns(rows: Sequence[Mapping[str, Any]]) -> _Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def write_parquet(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write a Parquet file for each table that has rows into the folder `destination`."""
    import pyarrow
    import pyarrow.parquet

    written = []
    for name, columns in make_tables(runs).items():
        if not columns:
            continue
        arrays = {column: pyarrow.array(_make_alike(values)) for column, values in columns.items()}
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table(arrays), sink)
        destination.mkdir(parents=True, exist_ok=True)
        write_atomically(destination / f"{name}.parquet", sink.getvalue().to_pybytes())
        written.append(f"{destination / name}.parquet: {len(next(iter(columns.values()))):,} rows")
    return written


def _make_alike(values: Sequence[Any]) -> Sequence[Any]:
    """Values of one type, which a column has to have; numbers stay numbers."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds <= {int, float}:
        return values
    return [None if value is None else str(value) for value in values]


def write_sqlite(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write an SQLite database; a file that is none is not overwritten."""
    if destination.exists() and not destination.read_bytes()[:16].startswith(b"SQLite format 3"):
        raise BadExperiment(
            what=f"{destination} is not overwritten", why="it is no SQLite database", next="name another file by -o"
        )
    connection = open_database(runs)
    try:
        with tempfile.TemporaryDirectory() as folder:
            connection.execute("VACUUM INTO ?", (f"{folder}/runs",))
            write_atomically(destination, Path(folder, "runs").read_bytes())
        counts = [f"{count:,} {name}" for name, count in _count_rows(connection).items()]
    finally:
        connection.close()
    return [f"{destination}: {', '.join(counts)}"]


def open_database(runs: Sequence[ExportedRun]) -> sqlite3.Connection:
    """The tables in an SQLite database in memory, for the caller to close."""
    connection = sqlite3.connect(":memory:")
    for name, columns in make_tables(runs).items():
        # A table without rows is still one that can be asked.
        names = list(columns) or ["run_id"]
        connection.execute(f"CREATE TABLE {_quote(name)} ({', '.join(map(_quote, names))})")
        marks = ", ".join("?" * len(names))
        connection.executemany(
            f"INSERT INTO {_quote(name)} VALUES ({marks})", zip(*(columns.get(n, ()) for n in names), strict=True)
        )
    connection.commit()
    return connection


def _count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    names = ("runs", "attempts", "findings", "windows")
    return {name: int(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in names}


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
