"""The dataset `chat`: conversations from any table, turned into text by the tokenizer's or a given chat template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunemark.data.chat_template import CHATML
from tunemark.errors import BadData, BadExperiment
from tunemark.plugin.descriptors import Example
from tunemark_datasets.files import read_template
from tunemark_datasets.table_rows import OPTIONS as ROW_OPTIONS
from tunemark_datasets.table_rows import DataRow, FileRows, HubRows, make_bad_data, open_rows

NAME = "chat"
OPTIONS = {
    **ROW_OPTIONS,
    "messages": "the column (messages, or else conversations), a list of objects with role and content, or with from "
    "and value",
    "template": "instead of the tokenizer's own: a Jinja file, or chatml",
    "answers": "which answers --train-on response trains on: all whose weight is not 0 (the default), or last, "
    "which also ends the conversation there",
}
_COLUMNS = ("messages", "conversations")
# Role names of the format with `from` and `value`.
_ROLES = {"human": "user", "gpt": "assistant"}
_FORMAT_VERSION = "1"


class Conversations:
    """One conversation per row."""

    def __init__(self, rows: FileRows | HubRows, column: str, template: str | None, answers: str) -> None:
        self._rows, self._column, self._template, self._answers = rows, column, template, answers

    def chat_template(self) -> str | None:
        return self._template

    def fingerprint(self) -> str:
        identity = [_FORMAT_VERSION, self._rows.fingerprint(), self._column, self._answers, self._template]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        template = "the tokenizer's" if self._template is None else self._template
        return {**self._rows.facts(), "messages": self._column, "answers": self._answers, "template": template}

    def examples(self) -> Iterator[Example]:
        row: DataRow | None = None
        for row in self._rows:
            yield Example(messages=tuple(self._read_messages(row)))
        if row is None:
            raise BadData(what=f"{NAME}: there are no rows", why=str(dict(self._rows.facts()))[:300])

    def _read_messages(self, row: DataRow) -> list[dict[str, Any]]:
        given = row.values.get(self._column)
        if not isinstance(given, list) or not given:
            shown = json.dumps(given, default=str)[:100]
            raise make_bad_data(NAME, row.where, f"its {self._column} is not a list of messages", f"it is {shown}")
        found = [_normalize_message(each, row, number) for number, each in enumerate(given, 1)]
        if self._answers == "all":
            return found
        last = max((n for n, each in enumerate(found) if each["role"] == "assistant"), default=None)
        if last is None:
            raise make_bad_data(NAME, row.where, "it has no assistant message", "answers=last needs one")
        return [*({**each, "weight": 0} for each in found[:last]), found[last]]


def _normalize_message(given: Any, row: DataRow, number: int) -> dict[str, Any]:
    """The message with `role` and `content` under these names, other keys unchanged."""
    message = dict(given) if isinstance(given, Mapping) else {}
    if "role" not in message and "from" in message:
        message["role"] = _ROLES.get(str(message.get("from")), message.pop("from"))
        message.pop("from", None)
        message["content"] = message.pop("value", None)
    if not isinstance(message.get("role"), str) or "content" not in message:
        shown = json.dumps(given, default=str, ensure_ascii=False)[:100]
        raise make_bad_data(NAME, row.where, f"message {number} has no role and content", f"it is {shown}")
    # A table gives every message the keys of all messages; the template must not see the missing ones.
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def load(options: Mapping[str, str], vocab_size: int) -> Conversations:
    """Open the rows, and check the options and the first file's column."""
    answers = options.get("answers", "all")
    if answers not in ("all", "last"):
        raise BadExperiment(what=f"{NAME}: answers cannot be {answers!r}", next="use all or last")
    template = _read_template(options.get("template"))
    rows = open_rows(NAME, options)
    columns = rows.columns()
    name = options.get("messages")
    column = next((c for c in ((name,) if name else _COLUMNS) if c in columns), None)
    if column is None:
        raise BadData(
            what=f"{NAME}: there is no column {name or ' or '.join(_COLUMNS)}",
            why=f"{options.get('path', options.get('hub'))} has {', '.join(columns) or 'none'}",
            next=f"name it: {NAME}:path=FILE:messages=COLUMN",
        )
    return Conversations(rows, column, template, answers)


def _read_template(name: str | None) -> str | None:
    if name is None or name == "chatml":
        return name and CHATML
    return read_template(
        NAME,
        name,
        kind="chat template",
        why="it is not chatml, and not a readable text file: ",
        next="give a Jinja file or chatml, or leave it out for the tokenizer's own",
    )
