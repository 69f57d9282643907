"""A cell as people read it: in the unit of its header, with the digits that its interval supports."""

from __future__ import annotations

from tunemark.report import Column, Table
from tunemark.report.report import Cell
from tunemark.report.rounding import plus_minus, scaled
from tunemark.report.words import Say
from tunemark.results import Estimate
from tunemark.units import GIB, significant

# Unit in the report: (unit shown, divisor).
_SHOWN = {"1": ("%", 0.01), "bytes": ("GiB", GIB), "FLOP/s": ("TFLOP/s", 1e12), "FLOP": ("GFLOP", 1e9)}


def kept(table: Table) -> list[int]:
    """The columns that say something: what is unknown of every row is left to the CSV."""
    return [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]


def told(table: Table) -> list[int]:
    """The rows that say something: of a table that has a row for each run, those with more than the run's name."""
    if not table.per_run:
        return list(range(len(table.rows)))
    nothing = (None,) * (len(table.columns) - 1)
    return [i for i, row in enumerate(table.rows) if row[1:] != nothing]


def silent(n: int, say: Say) -> str:
    """A sentence on the runs that `told` leaves out."""
    if n == 1:
        return say("Of one more run none of this is known.")
    return say("Of {n:,} more runs none of this is known.", n=n)


def is_numeric(table: Table, i: int) -> bool:
    return not {str, bool} & {type(row[i]) for row in table.rows}


def title(column: Column, say: Say) -> str:
    """The header, with its unit."""
    unit = _SHOWN.get(column.unit, (column.unit, 1.0))[0]
    return f"{column.title} ({_unit(unit, say)})" if unit else column.title


def shown(cell: Cell, column: Column, say: Say) -> str:
    """The cell's text, not escaped; unknown is said in a word."""
    divisor = _SHOWN.get(column.unit, (column.unit, 1.0))[1]
    if cell is None:
        return say("unknown")
    if isinstance(cell, Estimate):
        return plus_minus(scaled(cell, 1 / divisor), none=say("(no interval)"), to=say("to"))
    if isinstance(cell, bool):
        return say("yes") if cell else say("no")
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) and divisor == 1.0:
        return f"{cell:,}"
    return significant(cell / divisor)


def _unit(unit: str, say: Say) -> str:
    return say(unit) if unit in ("tokens", "sequences", "chips", "devices", "units") else unit
