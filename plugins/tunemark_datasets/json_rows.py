"""Rows of JSON in any form: one object a line, one list, objects one after another, or one object that holds the rows.

Values are read one after another, so that neither a long list nor a file of pretty-printed objects is in memory as a
whole. Only an object that holds all rows (as pandas and the hub's dataset server write) is.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

# Rows that are looked at to find the columns: a row need not have all of them.
HEAD_ROWS = 100
_CHUNK = 1 << 20
# A literal or an escape that a chunk may have cut is not longer than this.
_LONGEST_LITERAL = 12
_SPACE = re.compile(r"[ \t\n\r]*")
# Keys under which files are known to hold their rows.
_KEYS_OF_ROWS = ("data", "rows", "train", "examples", "instances", "items", "records", "dataset", "samples")
# What files hold that were not downloaded as they should be.
_NO_ROWS = {
    "version https://git-lfs": "it is a pointer of Git LFS: git lfs pull",
    "<": "it is a web page, not the file: download it by its raw or resolve address",
}
_SPLITS = ("train", "test", "validation", "valid", "dev", "eval")
# What a message may have: a list of these is a conversation, not a table.
_MESSAGE_KEYS = ("role", "from", "human")


class BadJsonError(ValueError):
    """A text that is no sequence of JSON rows. row: from 1. line: from 1, 0 if it is not known. advice: what to do."""

    def __init__(self, row: int, line: int, reason: str, advice: str = "") -> None:
        super().__init__(f"row {row}{f', line {line}' if line else ''}: {reason}")
        self.row, self.advice = row, advice


class JsonTable(NamedTuple):
    """columns: of the first rows. rows: each an object. source: how the file holds them, where that is worth saying."""

    columns: Sequence[str]
    rows: Iterator[Mapping[str, Any]]
    source: str = ""


def read_json_rows(file: IO[str], field: str | None = None, *, is_lines: bool = False) -> JsonTable:
    """The rows of an open file; `BadJsonError` here, or while they are read. field: the key that holds them, with
    points between nested keys; None where it can be recognized or there is none. is_lines: every object is a row."""
    found_values = _iterate_values(file)
    found_head, failure = _read_head(found_values)
    head: list[Any] = [value for value, _ in found_head]
    values: Iterator[Any] = (value for value, _ in found_values)
    # What stands in a list is a row, whatever it holds.
    is_alone = len(head) == 1 and not failure and isinstance(head[0], dict) and not found_head[0][1]
    source, columns = "", list[str]()
    if field is not None or (is_alone and not is_lines):
        if len(head) != 1 or not isinstance(head[0], dict):
            raise BadJsonError(1, 1, f"there is no key {field!r}: the file is a list of rows", "leave out field=")
        found = _rows_of_object(head[0], field)
        head, source, values, columns = list(found.rows), found.source, iter(()), list(found.columns)
    columns = columns or list(dict.fromkeys(name for row in head[:HEAD_ROWS] if isinstance(row, dict) for name in row))

    def rows() -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(itertools.chain(head, values), 1):
            if not isinstance(row, dict):
                raise BadJsonError(number, 0, f"its rows are not JSON objects: it is {type(row).__name__}")
            yield row
            if number == len(head) and failure:
                raise failure

    if head and not isinstance(head[0], dict):
        next(rows())
    return JsonTable(columns, rows(), source)


def _read_head(values: Iterator[tuple[Any, bool]]) -> tuple[list[tuple[Any, bool]], BadJsonError | None]:
    """The first values, and the error of the one after them: what comes before a broken row can still be read."""
    head: list[tuple[Any, bool]] = []
    try:
        head.extend(itertools.islice(values, HEAD_ROWS))
    except BadJsonError as error:
        if not head:
            raise
        return head, error
    return head, None


def _iterate_values(file: IO[str]) -> Iterator[tuple[Any, bool]]:
    """The top-level values of a text; those of a top-level list in its place, so that lists may follow each other; and
    whether each stands in such a list."""
    decoder = json.JSONDecoder()
    buffer, at, first_line, is_end = "", 0, 1, False
    count, in_list, needs_comma = 0, False, False

    def fail(position: int, reason: str, advice: str = "") -> BadJsonError:
        return BadJsonError(count + 1, first_line + buffer.count("\n", 0, position), reason, advice)

    while True:
        at = _skip_space(buffer, at)
        if at == len(buffer) and not is_end:
            first_line += buffer.count("\n")
            buffer, at = file.read(_CHUNK), 0
            is_end = not buffer
            continue
        if at == len(buffer):
            if in_list:
                raise fail(at, "the list does not end", "the file was cut: download or write it again")
            return
        mark = buffer[at]
        if mark == "[" and not in_list:
            in_list, needs_comma, at = True, False, at + 1
        elif mark == "]" and in_list:
            in_list, at = False, at + 1
        elif mark == "," and needs_comma:
            needs_comma, at = False, at + 1
        elif needs_comma:
            raise fail(at, f"{mark!r} where a comma or the end of the list should be")
        else:
            try:
                value, end = decoder.raw_decode(buffer, at)
            except json.JSONDecodeError as error:
                # What is left may be the beginning of a value: read on, twice as much each time, so that a long
                # value is not parsed once per chunk.
                if not is_end and _may_continue(buffer, error):
                    first_line += buffer.count("\n", 0, at)
                    buffer = buffer[at:]
                    more = file.read(max(_CHUNK, len(buffer)))
                    buffer, at, is_end = buffer + more, 0, not more
                    continue
                raise fail(error.pos, *_explain(buffer, error, is_end)) from error
            except RecursionError as error:
                raise fail(at, "it is nested too deeply") from error
            # A list may be closed right after a comma: many programs write that, and nothing is lost.
            yield value, in_list
            count, at, needs_comma = count + 1, end, in_list


def _skip_space(buffer: str, at: int) -> int:
    found = _SPACE.match(buffer, at)
    assert found is not None, "the pattern matches nothing too"
    return found.end()


def _may_continue(buffer: str, error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string") or len(buffer) - error.pos < _LONGEST_LITERAL


def _explain(buffer: str, error: json.JSONDecodeError, is_end: bool) -> tuple[str, str]:
    """(what is wrong, what to do)"""
    near = buffer[error.pos : error.pos + 1]
    reason = f"{error.msg}{f', at {buffer[error.pos : error.pos + 20]!r}' if near else ''}"
    if near == "'" or re.match("(None|True|False|nan)\\b", buffer[error.pos :]):
        return (
            f"{reason}: that is how Python prints a dict, not JSON",
            "write each row with json.dumps(row), or the table with DataFrame.to_json(orient='records', lines=True)",
        )
    if is_end and _may_continue(buffer, error):
        return f"the file ends within the row: {error.msg}", "the file was cut: download or write it again"
    advice = "put the rows into one list, or leave out the commas between them" if near == "," else ""
    return reason, next((words for mark, words in _NO_ROWS.items() if buffer.startswith(mark, error.pos)), advice)


def _rows_of_object(value: Mapping[str, Any], field: str | None) -> JsonTable:
    """The rows that one object holds, or the object as the only row."""
    if field is not None:
        return _rows_of_field(value, field)
    if set(value) >= {"columns", "data"} and _are(value["data"], list) and _are(value["columns"], str):
        # pandas, orient="split"
        names = value["columns"]
        return JsonTable(names, (dict(zip(names, row, strict=True)) for row in value["data"]), "columns and data")
    if is_table_of_columns(value):
        columns = {
            name: list(column.values()) if isinstance(column, dict) else column for name, column in value.items()
        }
        if len({len(column) for column in columns.values()}) > 1:
            raise BadJsonError(1, 1, "its columns differ in length")
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return JsonTable(list(columns), rows, "columns of one object")
    if len(value) > 1 and all(name.isdecimal() and isinstance(row, dict) for name, row in value.items()):
        return JsonTable([], iter(value.values()), "an object of numbered rows")
    keys = [name for name, rows in value.items() if _are_rows(rows)]
    known = [name for name in _KEYS_OF_ROWS if name in keys]
    if len([name for name in keys if name in _SPLITS]) > 1:
        raise BadJsonError(1, 1, f"it holds several lists of rows: {', '.join(keys)}", f"name one: field={keys[0]}")
    if known or len(value) == len(keys) == 1:
        return _rows_of_field(value, (known or keys)[0])
    return JsonTable(list(value), iter([value]))


def _rows_of_field(value: Any, field: str) -> JsonTable:
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            has = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise BadJsonError(
                1, 1, f"there is no key {key!r}, it has {has}", "name the key that holds the rows: field=KEY"
            )
        value = value[key]
    if not isinstance(value, list):
        raise BadJsonError(
            1, 1, f"under {field!r} is {type(value).__name__}, not a list of rows", "field=KEY of the list"
        )
    # The hub's dataset server puts each row into an object with its number and the names of cells that it cut.
    is_served = bool(value) and all(isinstance(each, dict) and {"row", "row_idx"} <= set(each) for each in value)
    if is_served:
        cut = next((n for n, each in enumerate(value, 1) if each.get("truncated_cells")), None)
        if cut is not None:
            raise BadJsonError(
                cut,
                0,
                f"the dataset server cut its {', '.join(value[cut - 1]['truncated_cells'])}",
                "download the parquet",
            )
        value = [each["row"] for each in value]
    return JsonTable([], iter(value), f"the list under {field!r}")


def is_table_of_columns(value: Mapping[str, Any]) -> bool:
    """Whether the object is a table with a list per column, or as pandas writes it an object of numbered cells; lists
    of messages make it a row."""
    if value and all(isinstance(column, dict) and column for column in value.values()):
        return all(name.isdecimal() for column in value.values() for name in column)
    return bool(value) and _are_all(value.values(), list) and not all(_are(column, dict) for column in value.values())


def _are_rows(value: Any) -> bool:
    """Whether this is a list of rows, not one of messages."""
    return _are(value, dict) and not any(key in value[0] for key in _MESSAGE_KEYS)


def _are(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and _are_all(value, kind)


def _are_all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(each, kind) for each in values)
