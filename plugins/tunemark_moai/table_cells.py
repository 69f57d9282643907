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
    """Free text; None where the cell is empty or a dash, or the table has no such column."""
    cell = row.cells.get(column, "")
    return None if cell in ("", "-") else cell


def parse_flavor(row: TableRow, column: str) -> str | None:
    """A flavor, which may be one of a group: `Small.64GB`, or `small mg1`."""
    found = _match(row, column, _FLAVOR, "a flavor like `4xLarge.2048GB`")
    return found and found[0]


def parse_location(row: TableRow, column: str) -> tuple[str | None, int | None]:
    """A host and the index of the device on it: `back01:0`."""
    found = _match(row, column, _LOCATION, "a place like `back01:0`")
    return (found[1], int(found[2])) if found else (None, None)


def parse_integer(row: TableRow, column: str) -> int | None:
    """A whole number."""
    found = _match(row, column, _INTEGER, "a whole number")
    return int(found[0]) if found else None


def parse_starred_integer(row: TableRow, column: str) -> tuple[int, bool]:
    """A required whole number, and whether a star precedes it."""
    found = _STARRED_INTEGER.fullmatch(row.cells[column])
    if not found:
        raise _unreadable(row, column, "a whole number, with or without a star before it")
    return int(found[2]), found[1] is not None


def parse_mebibytes(row: TableRow, column: str) -> int | None:
    """A size in MiB; the cell must contain the unit."""
    found = _match(row, column, _MEBIBYTES, "a size in MiB like `65520 MiB`")
    return int(found[1].replace(",", "")) if found else None


def parse_fraction(row: TableRow, column: str, *, sign: bool) -> float | None:
    """A percentage as a fraction. sign: the cell must contain % because the header does not."""
    expected = "per cent like `53 %`" if sign else "per cent like `53`"
    found = _match(row, column, _PERCENTAGE, expected)
    if found and sign and not found[2]:
        raise _unreadable(row, column, f"{expected}, or a dash")
    # Division keeps a whole percentage exact: 0.29, not 0.29000000000000004.
    return float(found[1]) / 100 if found else None


def parse_celsius(row: TableRow, column: str) -> float | None:
    """A temperature in degrees Celsius; the cell must contain the unit."""
    found = _match(row, column, _CELSIUS, "a temperature like `43 C`")
    return float(found[1]) if found else None


def _match(row: TableRow, column: str, pattern: re.Pattern[str], expected: str) -> re.Match[str] | None:
    """The match of the whole cell; None where it is unknown."""
    cell = parse_text(row, column)
    found = None if cell is None else pattern.fullmatch(cell)
    if cell is not None and not found:
        raise _unreadable(row, column, f"{expected}, or a dash")
    return found


def _unreadable(row: TableRow, column: str, expected: str) -> UnreadableOutput:
    return UnreadableOutput(
        what=f"the cell {row.cells[column]!r} in column {column!r} is not understood", line=row.line, expected=expected
    )
