"""The errors for a file of rows, or for one row of it."""

from __future__ import annotations

from pathlib import Path

from tunemark.errors import BadData


class BadRow(BadData):
    """One row that lacks what its dataset needs; `incomplete=skip` leaves such rows out."""


def make_bad_data(name: str, where: Path | str, fact: str, why: str, advice: str = "") -> BadData:
    """The error for a file. name: of the dataset."""
    return BadData(**_words(name, where, fact, why, advice or "correct it, or give another file with path=FILE"))


def make_bad_row(name: str, where: str, fact: str, why: str, advice: str = "") -> BadRow:
    """The error for a row. where: `DataRow.where`."""
    mend = advice or "correct it"
    return BadRow(**_words(name, where, fact, why, f"{mend}; or leave such rows out with {name}:...:incomplete=skip"))


def _words(name: str, where: Path | str, fact: str, why: str, advice: str) -> dict[str, str]:
    shown = str(where) if str(where).startswith(("'", '"')) else repr(str(where))
    return {"what": f"{name}: cannot use {shown}: {fact}", "why": why, "next": advice}
