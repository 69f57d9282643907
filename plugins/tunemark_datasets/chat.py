"""The dataset `chat`: conversations from any table, turned into text by the tokenizer's or a given chat template.

A row is a list of messages; or a prompt and a completion, each a text or messages (TRL); or an instruction with an
answer, and with a system message and earlier turns where it has them (LLaMA-Factory's alpaca).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tunemark.data.chat_template import CHATML
from tunemark.errors import BadExperiment
from tunemark.plugin.descriptors import Example
from tunemark_datasets.files import read_template
from tunemark_datasets.messages import MessageKeys, parse_if_json, read_messages, read_tools
from tunemark_datasets.row_errors import BadRow, make_bad_row
from tunemark_datasets.row_forms import MESSAGE_COLUMNS, check_no_preference, format_left_out
from tunemark_datasets.table_rows import OPTIONS as ROW_OPTIONS
from tunemark_datasets.table_rows import (
    DataRow,
    FileRows,
    HubRows,
    LeftOutText,
    SkippedRows,
    check_columns,
    make_no_rows_error,
    open_rows,
    read_text,
    resolve_entry,
)

NAME = "chat"
OPTIONS = {
    **ROW_OPTIONS,
    "messages": f"the column ({', '.join(MESSAGE_COLUMNS)}), a list of objects with role and content, or with from "
    "and value",
    "role_key": "the key of a message's role (role, from)",
    "content_key": "the key of a message's content (content, value)",
    "roles": "what the roles are called, such as Q=user,A=assistant",
    "system": "the column of the system message, if there is one (system)",
    "tools": "the column of the tools' descriptions, if there is one (tools, functions)",
    "prompt": "instead of messages: the prompt's column (prompt), a text or messages",
    "completion": "with prompt: the answer's column (completion)",
    "instruction": "instead of messages: the instruction's column (instruction)",
    "input": "with instruction: the input's column, if there is one (input)",
    "output": "with instruction: the answer's column (output)",
    "history": "with instruction: the column of earlier turns, pairs of texts, if there is one (history)",
    "template": "instead of the tokenizer's own: a Jinja file, or chatml",
    "answers": "which answers --train-on response trains on: all whose weight is not 0 (the default), or last, "
    "which also ends the conversation there",
}
# The forms of a row, in the order in which they are looked for: the columns it must have, and those it may have.
_FORMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "messages": (("messages",), ("system", "tools")),
    "prompt": (("prompt", "completion"), ("system", "tools")),
    "instruction": (("instruction", "output"), ("input", "system", "history", "tools")),
}
# Options by the names of columns in LLaMA-Factory's dataset_info.json, for its two formats.
_REGISTERED = {"messages": "messages", "system": "system", "tools": "tools", "history": "history",
               "prompt": "instruction", "query": "input", "response": "output",
               "role_tag": "role_key", "content_tag": "content_key"}  # fmt: skip
_KNOWN_ROLES = ("user", "assistant", "system", "tool", "function_call")
_FORMAT_VERSION = "2"


class Conversations:
    """One conversation per row. columns: by the option that names them; their form is the first one's."""

    def __init__(
        self,
        rows: FileRows | HubRows,
        columns: Mapping[str, str],
        template: str | None,
        answers: str,
        skipped: SkippedRows,
        keys: MessageKeys,
    ) -> None:
        self._rows, self._columns, self._template, self._answers = rows, columns, template, answers
        self._keys = keys
        self._skipped, self._left_out = skipped, LeftOutText(columns.values())

    def chat_template(self) -> str | None:
        return self._template

    def fingerprint(self) -> str:
        columns = sorted(self._columns.items())
        identity: list[object] = [_FORMAT_VERSION, self._rows.fingerprint(), columns, self._answers, self._template]
        if self._keys != MessageKeys():
            identity.append(self._keys)
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        template = "the tokenizer's" if self._template is None else self._template
        return {
            **self._rows.facts(),
            "columns": dict(self._columns),
            "answers": self._answers,
            "template": template,
            **self._skipped.facts(),
            "left_out": self._left_out.facts(),
        }

    def remarks(self) -> list[str]:
        found = self._left_out.facts()
        return [f"{NAME} uses no other columns; left out are {format_left_out(found)}"] if found else []

    def examples(self) -> Iterator[Example]:
        row: DataRow | None = None
        for row in self._rows:
            try:
                example = self._make_example(row)
            except BadRow as error:
                self._skipped.take(error)
                continue
            self._left_out.add(row)
            yield example
        if row is None:
            raise make_no_rows_error(NAME, self._rows)

    def _make_example(self, row: DataRow) -> Example:
        def fail(fact: str, why: str, advice: str) -> NoReturn:
            raise make_bad_row(NAME, row.where, fact, why, advice)

        values = {option: row.values.get(column) for option, column in self._columns.items()}
        if "messages" in values:
            found = self._read_list(row, "messages")
        elif "prompt" in values:
            # What comes before the completion is not trained on, whoever says it.
            found = [
                {**each, "weight": 0} if each["role"] == "assistant" else each
                for each in self._read_turns(row, "prompt", "user")
            ] + self._read_turns(row, "completion", "assistant")
        else:
            found = self._read_instruction(row)
        system = values.get("system")
        if isinstance(system, str) and system and not any(each["role"] == "system" for each in found):
            found.insert(0, {"role": "system", "content": system})
        if self._answers == "last":
            found = self._end_at_last_answer(found, row)
        return Example(messages=tuple(found), tools=read_tools(values.get("tools"), fail), where=row.where)

    def _read_list(self, row: DataRow, option: str) -> list[dict[str, Any]]:
        column = self._columns[option]

        def fail(fact: str, why: str, advice: str) -> NoReturn:
            raise make_bad_row(NAME, row.where, fact, why, advice)

        given = parse_if_json(row.values.get(column), f"its {column}", fail)
        if not isinstance(given, list) or not given:
            shown = json.dumps(given, default=str, ensure_ascii=False)[:100]
            fail(f"its {column} is not a list of messages", f"it is {shown}", "")
        return read_messages(given, fail, self._keys)

    def _read_turns(self, row: DataRow, option: str, role: str) -> list[dict[str, Any]]:
        """The messages of a prompt or a completion: a list of them, or the text of one."""
        value = row.values.get(self._columns[option])
        if isinstance(value, str) and not value.lstrip().startswith("[{"):
            return [{"role": role, "content": value}]
        return self._read_list(row, option)

    def _read_instruction(self, row: DataRow) -> list[dict[str, Any]]:
        """LLaMA-Factory's alpaca: earlier turns as pairs, the input below the instruction."""

        def part(option: str, *, may_lack: bool = False) -> str:
            column = self._columns.get(option)
            return "" if column is None else read_text(NAME, row, column, may_lack=may_lack)

        def fail(fact: str, why: str, advice: str) -> NoReturn:
            raise make_bad_row(NAME, row.where, fact, why, advice)

        turns = parse_if_json(row.values.get(self._columns.get("history", "")), "its history", fail) or []
        is_paired = isinstance(turns, list) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
            for pair in turns
        )
        if not is_paired:
            fail(
                "its history is not a list of pairs of texts", f"it is {str(turns)[:100]}", "[[question, answer], ...]"
            )
        texts = [*turns, ("\n".join(filter(None, [part("instruction"), part("input", may_lack=True)])), part("output"))]
        pairs = zip(("user", "assistant") * len(texts), (text for pair in texts for text in pair), strict=True)
        return [{"role": role, "content": text} for role, text in pairs]

    def _end_at_last_answer(self, found: list[dict[str, Any]], row: DataRow) -> list[dict[str, Any]]:
        last = max((n for n, each in enumerate(found) if each["role"] == "assistant"), default=None)
        if last is None:
            raise make_bad_row(NAME, row.where, "it has no assistant message", "answers=last needs one")
        return [*({**each, "weight": 0} for each in found[:last]), found[last]]


def load(options: Mapping[str, str], vocab_size: int) -> Conversations:
    """Open the rows, and check the options and the first file's columns."""
    answers = options.get("answers", "all")
    if answers not in ("all", "last"):
        raise BadExperiment(what=f"{NAME}: answers cannot be {answers!r}", next="use all or last")
    template = _read_template(options.get("template"))
    options = resolve_entry(NAME, options, _REGISTERED)
    rows, skipped = open_rows(NAME, options), SkippedRows(NAME, options)
    available = rows.columns()
    source = options.get("path", options.get("hub", ""))
    columns = _find_columns(options, available)
    check_no_preference(NAME, available, columns.values(), source)
    missing = [column for column in columns.values() if column not in available]
    missing = missing or ([] if columns else ["messages or conversations"])
    check_columns(NAME, rows, source, available, missing, f"name it: {NAME}:path=FILE:messages=COLUMN")
    return Conversations(rows, columns or {"messages": "messages"}, template, answers, skipped, _read_keys(options))


def _read_keys(options: Mapping[str, str]) -> MessageKeys:
    pairs = [each.partition("=") for each in options.get("roles", "").split(",") if each]
    wrong = next((each for each in pairs if each[2] not in _KNOWN_ROLES or not each[0]), None)
    if wrong is not None:
        raise BadExperiment(
            what=f"{NAME}: roles cannot be {''.join(wrong)!r}",
            next=f"write roles=THEIRS=OURS,THEIRS=OURS, where ours are {', '.join(_KNOWN_ROLES)}",
        )
    return MessageKeys(
        role=options.get("role_key"),
        content=options.get("content_key"),
        roles={theirs: ours for theirs, _, ours in pairs},
    )


def _find_columns(options: Mapping[str, str], available: Sequence[str]) -> dict[str, str]:
    """The columns by the option that names them, of the form that the options name, or else of the first one that the
    table has; none where it has none."""
    given = next((form for form, (needed, _) in _FORMS.items() if set(needed) & set(options)), None)
    for form in _FORMS if given is None else (given,):
        needed, optional = _FORMS[form]
        named = {part: options.get(part, part) for part in needed}
        if form == "messages" and "messages" not in options:
            named["messages"] = next((each for each in MESSAGE_COLUMNS if each in available), "messages")
        if given is not None or set(named.values()) <= set(available):
            more = {part: options.get(part, part) for part in optional if part in options or part in available}
            if "tools" not in more and "functions" in available:
                more["tools"] = "functions"
            return {**named, **more}
    return {}


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
