"""Parse the cells of a table row. A dash or an empty cell means unknown, which is None and never zero."""

from __future__ import annotations

import re

from tunemark_moai.tables import TableRow
from tunemark_moai.terminal_text import UnreadableOutput

# Documents write thousands with commas, the tools do not.
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})"
_INTEGER = re.compile(r"[0-9]{1,15}")
_MEBIBYTES = re.compile(rf"({_NUMBER}) ?\s*MiB")
_PERCENTAGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(%?)")
_CELSIUS = re.compile(r"(-?[0-9]{1,4}(?:\.[0-9]{1,3})?)\s*C")
_FLAVOR = re.compile(r"[0-9A-Za-z][\w.+-]*(?: (?:at )?[\w.+-]+)?")
_LOCATION = re.compile(r"(\S+):([0-9]{1,9})")
_STARRED_INTEGER = re.compile(r"(?:(\\?\*)\s*)?([0-9]{1,15})")


def parse_text(row: TableRow, column: str) -> str | None:
    """Free text."""
    return _cell(row, column)


def parse_flavor(row: TableRow, column: str) -> str | None:
    """A flavor, which may be one of a group: `Small.64GB`, or `small mg1`."""
    cell = _cell(row, column)
    if cell is not None and not _FLAVOR.fullmatch(cell):
        raise _unreadable(row, column, "a flavor like `4xLarge.2048GB`, or a dash")
    return cell


def parse_location(row: TableRow, column: str) -> tuple[str | None, int | None]:
    """A host and the index of the device on it: `back01:0`."""
    cell = _cell(row, column)
    if cell is None:
        return None, None
    found = _LOCATION.fullmatch(cell)
    if not found:
        raise _unreadable(row, column, "a place like `back01:0`, or a dash")
    return found.group(1), int(found.group(2))


def parse_integer(row: TableRow, column: str) -> int | None:
    """A whole number."""
    cell = _cell(row, column)
    if cell is None:
        return None
    if not _INTEGER.fullmatch(cell):
        raise _unreadable(row, column, "a whole number, or a dash")
    return int(cell)


def parse_starred_integer(row: TableRow, column: str) -> tuple[int, bool]:
    """A required whole number, and whether a star precedes it."""
    found = _STARRED_INTEGER.fullmatch(row.cells[column])
    if not found:
        raise _unreadable(row, column, "a whole number, with or without a star before it")
    return int(found.group(2)), found.group(1) is not None


def parse_mebibytes(row: TableRow, column: str) -> int | None:
    """A size in MiB; the cell must contain the unit."""
    cell = _cell(row, column)
    if cell is None:
        return None
    found = _MEBIBYTES.fullmatch(cell)
    if not found:
        raise _unreadable(row, column, "a size in MiB like `65520 MiB`, or a dash")
    return int(found.group(1).replace(",", ""))


def parse_fraction(row: TableRow, column: str, *, sign: bool) -> float | None:
    """A percentage as a fraction. sign: the cell must contain % because the header does not."""
    cell = _cell(row, column)
    if cell is None:
        return None
    found = _PERCENTAGE.fullmatch(cell)
    if not found or (sign and not found.group(2)):
        raise _unreadable(row, column, "per cent like `53 %`, or a dash" if sign else "per cent like `53`, or a dash")
    # Division keeps a whole percentage exact: 0.29, not 0.29000000000000004.
    return float(found.group(1)) / 100


def parse_celsius(row: TableRow, column: str) -> float | None:
    """A temperature in degrees Celsius; the cell must contain the unit."""
    cell = _cell(row, column)
    if cell is None:
        return None
    found = _CELSIUS.fullmatch(cell)
    if not found:
        raise _unreadable(row, column, "a temperature like `43 C`, or a dash")
    return float(found.group(1))


def _cell(row: TableRow, column: str) -> str | None:
    """The cell's text; None where it is empty or a dash, or the table has no such column."""
    cell = row.cells.get(column, "")
    return None if cell in ("", "-") else cell


def _unreadable(row: TableRow, column: str, expected: str) -> UnreadableOutput:
    return UnreadableOutput(
        what=f"the cell {row.cells[column]!r} in column {column!r} is not understood", line=row.line, expected=expected
    )
