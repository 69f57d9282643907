"""iamtarun/python_code_instructions_18k_alpaca, from the hub, its local cache, or a file with the same columns.

No rows are shipped, because the licence is not stated. An unreachable hub is an error; no other data replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.descriptors import Example
from tunemark_datasets import sections_template
from tunemark_datasets.row_errors import make_bad_data
from tunemark_datasets.table_files import find_files
from tunemark_datasets.table_rows import DataRow, FileRows, HubRows, load_from_hub

NAME = "python-code-alpaca"
REPOSITORY = "iamtarun/python_code_instructions_18k_alpaca"
_PARTS = ("instruction", "input", "output")
_ADVICE = "give a file with path=FILE, or use another dataset such as python-stdlib"
_FORMATS = ("parquet", "json lines", "json")


def load(options: Mapping[str, str], vocab_size: int) -> PythonCodeAlpaca:
    if "path" not in options:
        return PythonCodeAlpaca(HubRows(REPOSITORY, options, load_from_hub(NAME, REPOSITORY, options, _ADVICE)))
    if "revision" in options:
        raise BadData(
            what=f"{NAME}: path and revision exclude each other",
            why="a revision is a version of the hub repository; a file has none",
            next="leave out one of them",
        )
    found = find_files(NAME, Path(options["path"]).expanduser(), formats=_FORMATS)
    return PythonCodeAlpaca(FileRows(NAME, found.paths, found=found))


class PythonCodeAlpaca:
    """One example per row. The text is the column `prompt`, or else made from the other three."""

    def __init__(self, rows: FileRows | HubRows) -> None:
        self._rows = rows

    def fingerprint(self) -> str:
        return self._rows.fingerprint()

    def facts(self) -> Mapping[str, Any]:
        return self._rows.facts()

    def examples(self) -> Iterator[Example]:
        is_empty = True
        columns = self._rows.columns()
        where = REPOSITORY if isinstance(self._rows, HubRows) else str(self._rows.paths[0])
        missing = [name for name in _PARTS if name not in columns]
        if "prompt" not in columns and missing:
            raise make_bad_data(
                NAME,
                where,
                f"it lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
                f"it has {', '.join(columns) or 'none'}; it needs prompt, or instruction, input and output",
                _ADVICE,
            )
        for row in self._rows:
            is_empty = False
            yield _split_prompt(row) if "prompt" in columns else _join_parts(row)
        if is_empty:
            raise make_bad_data(NAME, where, "it has no rows", "", _ADVICE)


def _split_prompt(row: DataRow) -> Example:
    text, output = row.values.get("prompt"), row.values.get("output")
    pair = (
        sections_template.split_prompt(text, output if isinstance(output, str) else None)
        if isinstance(text, str)
        else None
    )
    if pair is None:
        raise make_bad_data(NAME, row.where, "its column prompt is no text with a section '### Output:'", "", _ADVICE)
    return sections_template.make_example(*pair)


def _join_parts(row: DataRow) -> Example:
    instruction, input, output = (row.values.get(name) for name in _PARTS)
    input = "" if input is None else input
    if not (isinstance(instruction, str) and isinstance(input, str) and isinstance(output, str)):
        raise make_bad_data(NAME, row.where, "instruction, input or output is not text", "", _ADVICE)
    return sections_template.make_example(sections_template.format_prompt(instruction, input), output)
