"""What a report is made of: titled tables whose columns have units, and whose cells are values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunemark.report.charts import Origin
from tunemark.results.result import Estimate

Cell = str | int | float | bool | None | Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """name: the field's, for programs. title, unit: for people; a fraction has the unit "1". help: what it means."""

    name: str
    title: str
    unit: str = ""
    help: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of cells; None is unknown. per_run: one row for each run, in the report's order of runs.

    key: a name for files. workings: how the cell (row, column's name) came about, in words and numbers. runs: of each
    row the run_id that it is of, None where it is of no single one; empty where rows are of no run. origins: of each
    row, empty where all are measured.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    per_run: bool = True
    key: str = ""
    workings: Mapping[tuple[int, str], str] = field(default_factory=dict)
    runs: tuple[str | None, ...] = ()
    origins: tuple[Origin, ...] = ()
