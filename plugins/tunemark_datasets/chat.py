"""Conversations from any table. A chat template makes text of them: the tokenizer's own, or one that is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemark.data.chat import CHATML
from tunemark.errors import BadData, BadExperiment
from tunemark.plugin.descriptors import Example
from tunemark_datasets.rows import OPTIONS as OF_ROWS
from tunemark_datasets.rows import Files, Hub, Row, bad, open_rows

NAME = "chat"
OPTIONS = {
    **OF_ROWS,
    "messages": "the column (messages, or else conversations): a list of objects with role and content, or with from "
    "and value",
    "template": "instead of the tokenizer's own: a file of Jinja, or chatml",
    "answers": "of which a loss is taken under --train-on response: all whose weight is not 0 (the default), or the "
    "last one, with which the conversation then ends",
}
_COLUMNS = ("messages", "conversations")
# What the form with `from` and `value` calls the roles.
_ROLES = {"human": "user", "gpt": "assistant"}
_FORM = "1"


class Conversations:
    """A conversation a row."""

    def __init__(self, rows: Files | Hub, column: str, template: str | None, answers: str) -> None:
        self._rows, self._column, self._template, self._answers = rows, column, template, answers

    def chat_template(self) -> str | None:
        return self._template

    def fingerprint(self) -> str:
        identity = [_FORM, self._rows.fingerprint(), self._column, self._answers, self._template]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        template = "the tokenizer's" if self._template is None else self._template
        return {**self._rows.facts(), "messages": self._column, "answers": self._answers, "template": template}

    def examples(self) -> Iterator[Example]:
        row: Row | None = None
        for row in self._rows:
            yield Example(messages=tuple(self._messages(row)))
        if row is None:
            raise BadData(what=f"{NAME}: there are no rows", why=str(dict(self._rows.facts()))[:300])

    def _messages(self, row: Row) -> list[dict[str, Any]]:
        given = row.values.get(self._column)
        if not isinstance(given, list) or not given:
            shown = json.dumps(given, default=str)[:100]
            raise bad(NAME, row.where, f"its {self._column} are no list of messages", f"they are {shown}")
        found = [_message(each, row, number) for number, each in enumerate(given, 1)]
        if self._answers == "all":
            return found
        last = max((n for n, each in enumerate(found) if each["role"] == "assistant"), default=None)
        if last is None:
            raise bad(NAME, row.where, "nobody answers in it", "answers=last needs a message of the assistant's")
        return [*({**each, "weight": 0} for each in found[:last]), found[last]]


def _message(given: Any, row: Row, number: int) -> dict[str, Any]:
    """Role and content under their usual names; the rest as it is."""
    message = dict(given) if isinstance(given, Mapping) else {}
    if "role" not in message and "from" in message:
        message["role"] = _ROLES.get(str(message.get("from")), message.pop("from"))
        message.pop("from", None)
        message["content"] = message.pop("value", None)
    if not isinstance(message.get("role"), str) or "content" not in message:
        shown = json.dumps(given, default=str, ensure_ascii=False)[:100]
        raise bad(NAME, row.where, f"message {number} has no role and content", f"it is {shown}")
    # A table gives every message the columns of all; what is not there is not told to the template.
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def load(options: Mapping[str, str], vocab_size: int) -> Conversations:
    """Opens the rows, and checks the column of the first file and the options."""
    answers = options.get("answers", "all")
    if answers not in ("all", "last"):
        raise BadExperiment(what=f"{NAME}: answers cannot be {answers!r}", next="all, or last")
    template = _template(options.get("template"))
    rows = open_rows(NAME, options)
    there = rows.columns()
    named = options.get("messages")
    column = next((c for c in ((named,) if named else _COLUMNS) if c in there), None)
    if column is None:
        raise BadData(
            what=f"{NAME}: there is no column {named or ' or '.join(_COLUMNS)}",
            why=f"{options.get('path', options.get('hub'))} has {', '.join(there) or 'none'}",
            next=f"name it: {NAME}:path=FILE:messages=COLUMN",
        )
    return Conversations(rows, column, template, answers)


def _template(named: str | None) -> str | None:
    if named is None or named == "chatml":
        return named and CHATML
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadExperiment(
            what=f"{NAME}: there is no chat template {named!r}",
            why=f"it is not chatml, and no file of text: {error}",
            next="give a file of Jinja, chatml, or leave it out for the tokenizer's own",
        ) from error
