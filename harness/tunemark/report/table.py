"""What a report is made of: titled tables whose columns have units, and whose cells are values."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Rows of cells; None is unknown. per_run: one row for each run, in the report's order of runs."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    per_run: bool = True
