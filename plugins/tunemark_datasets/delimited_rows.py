"""Rows of CSV and TSV, in any encoding."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemark_datasets.row_errors import make_bad_data
from tunemark_datasets.text_files import open_text, report_unreadable

# The csv module's default limit is 128 KiB per field; answers can be longer.
_LONGEST_FIELD = 1 << 30
# Separators that a header of one column is searched for.
_SEPARATORS = (";", "\t", "|")


class DelimitedRows:
    """A file with a header. columns: its names. separator: as the header shows it, where a comma would leave one
    column; spreadsheets of many countries write semicolons."""

    def __init__(self, name: str, path: Path, encoding: str, kind: str) -> None:
        csv.field_size_limit(_LONGEST_FIELD)
        self._name, self._path, self._encoding, self._kind = name, path, encoding, kind
        self.separator = "\t" if kind == "TSV" else ","
        self.columns = next(self._parse(), [])
        if len(self.columns) == 1:
            other = next((mark for mark in _SEPARATORS if mark in self.columns[0]), None)
            if other is not None:
                self.separator = other
                self.columns = next(self._parse(), [])
        if len(set(self.columns)) < len(self.columns):
            raise make_bad_data(name, path, "a column is named twice", ", ".join(self.columns))

    def rows(self) -> Iterator[Mapping[str, Any]]:
        for number, values in enumerate(itertools.islice(self._parse(), 1, None), 1):
            if len(values) != len(self.columns):
                if not values:
                    continue
                raise make_bad_data(
                    self._name,
                    self._path,
                    f"row {number} has {len(values)} fields",
                    f"its first line has {len(self.columns)}, separated by {self.separator!r}",
                    'put a field with a separator, a quote or a newline between quotes: "a; ""b"""',
                )
            yield dict(zip(self.columns, values, strict=True))

    def _parse(self) -> Iterator[list[str]]:
        number = -1
        try:
            with (
                report_unreadable(self._name, self._path, self._encoding),
                open_text(self._path, self._encoding) as file,
            ):
                for row in csv.reader(file, delimiter=self.separator, strict=True):
                    number += 1
                    yield row
        except csv.Error as error:
            where = f"row {number + 1}" if number >= 0 else "its header"
            raise make_bad_data(
                self._name, self._path, f"it is not {self._kind}: {where} cannot be parsed", str(error)
            ) from error
