"""The tables of a report: columns with units, cells with unrounded values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunemark.report.chart_types import Origin
from tunemark.report.translation import Translate
from tunemark.results.result import Estimate

Cell = str | int | float | bool | None | Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """name: of the field, for programs. title, unit: for readers; a fraction has the unit "1". help: its meaning."""

    name: str
    title: str
    unit: str = ""
    help: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTable:
    """Rows of cells; None is unknown. per_run: it has one row for each run, in the report's order of runs.

    key: a name for files. derivations: by (row, column's name), how the cell was computed. runs: the run_id of each
    row, None for a row of no single run; empty if rows are not about runs. origins: of each row; empty if all are
    measured.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    per_run: bool = True
    key: str = ""
    derivations: Mapping[tuple[int, str], str] = field(default_factory=dict)
    runs: tuple[str | None, ...] = ()
    origins: tuple[Origin, ...] = ()


def make_columns(fields: Iterable[tuple[str, ...]], tr: Translate) -> tuple[Column, ...]:
    """Columns of (name, English title, unit, English help), the last two of which may be left out."""

    def make(name: str, title: str, unit: str = "", help: str = "") -> Column:
        return Column(name=name, title=tr(title), unit=unit, help=tr(help) if help else "")

    return tuple(make(*field) for field in fields)


def make_own_table(
    key: str,
    title: str,
    fields: Iterable[tuple[str, ...]],
    rows: Iterable[tuple[Cell, ...]],
    tr: Translate,
    **more: Any,
) -> ReportTable:
    """A table with rows of its own instead of one for each run. title: translated. fields: of `make_columns`."""
    return ReportTable(key=key, title=title, columns=make_columns(fields, tr), rows=tuple(rows), per_run=False, **more)
