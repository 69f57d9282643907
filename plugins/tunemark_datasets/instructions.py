"""Instructions with answers from any table: columns by name, and a template that makes a prompt and a response of them.

The template of Stanford Alpaca is the default: Taori et al. 2023, "Stanford Alpaca: An Instruction-following LLaMA
model", whose prompt differs where there is no input.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadData, BadExperiment, did_you_mean
from tunemark.plugin.descriptors import Example, Piece
from tunemark_datasets import alpaca
from tunemark_datasets.rows import OPTIONS as OF_ROWS
from tunemark_datasets.rows import Files, Hub, Row, bad, open_rows

NAME = "alpaca"
OPTIONS = {
    **OF_ROWS,
    "instruction": "its column (instruction)",
    "input": "its column (input, where there is one); none: no row has an input",
    "output": "its column (output)",
    "template": "stanford (the default), sections (as python-code-alpaca), plain, or a file with {instruction}, "
    "{input} and {output}: what stands before {output} is the prompt",
    "template_no_input": "another file, for rows without an input",
}
_COLUMNS = ("instruction", "input", "output")
_PLACE = re.compile(r"\{(instruction|input|output)\}")
_ASKS = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
_ANSWER = "### Response:\n{output}"
_PAIRED = f"{_ASKS}, paired with an input that provides further context. {_WRITE}### Input:\n{{input}}\n\n{_ANSWER}"
_SECTIONS = alpaca.prompt("{instruction}", "{input}") + "{output}"
# By name: with an input, and without one.
_TEMPLATES = {
    "stanford": (_PAIRED, f"{_ASKS}. {_WRITE}{_ANSWER}"),
    "sections": (_SECTIONS, _SECTIONS),
    "plain": ("{instruction}\n{input}\n{output}", "{instruction}\n{output}"),
}
# Changes whenever the same rows would give other examples.
_FORM = "1"


class Template:
    """Text with places for columns. What stands before {output} is the prompt, the rest the response."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        names = _PLACE.findall(text)
        if names.count("output") != 1 or "instruction" not in names:
            raise BadExperiment(
                what=f"{where} is no template of {NAME}",
                why=f"it holds {', '.join(f'{{{n}}}' for n in names) or 'no place'}; needed are {{instruction}}, and "
                "{output} once",
                next="write {instruction}, {input} and {output} where they belong; other braces are left alone",
            )
        if "instruction" in names[names.index("output") :] or "input" in names[names.index("output") :]:
            raise BadExperiment(
                what=f"{where} is no template of {NAME}",
                why="something of the prompt stands behind {output}, where a model has answered already",
                next="put {output} behind {instruction} and {input}",
            )
        before, after = re.split(r"\{output\}", text)
        self._before, self._after = before, after

    def example(self, instruction: str, input: str, output: str) -> Example:
        values = {"instruction": instruction, "input": input}
        prompt = _PLACE.sub(lambda m: values[m[1]], self._before)
        return Example(pieces=(Piece(role="prompt", text=prompt), Piece(role="response", text=output + self._after)))


class Instructions:
    """An example a row. columns: by what it is for; the input's is None where there is none."""

    def __init__(
        self, rows: Files | Hub, columns: Mapping[str, str | None], with_input: Template, without: Template
    ) -> None:
        self._rows, self._columns = rows, columns
        self._with_input, self._without = with_input, without

    def fingerprint(self) -> str:
        texts = [self._with_input.text, self._without.text]
        identity = [_FORM, self._rows.fingerprint(), dict(self._columns), texts]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        return {
            **self._rows.facts(),
            "columns": dict(self._columns),
            "template": self._with_input.text,
            "template_no_input": self._without.text,
        }

    def examples(self) -> Iterator[Example]:
        row: Row | None = None
        for row in self._rows:
            instruction = self._text(row, "instruction")
            input = self._text(row, "input") if self._columns["input"] is not None else ""
            template = self._with_input if input.strip() else self._without
            yield template.example(instruction, input, self._text(row, "output"))
        if row is None:
            raise BadData(what=f"{NAME}: there are no rows", why=str(dict(self._rows.facts()))[:300])

    def _text(self, row: Row, part: str) -> str:
        column = self._columns[part]
        if column not in row.values and part != "input":
            raise bad(NAME, row.where, f"it lacks the column {column}", f"it has {', '.join(row.values) or 'none'}")
        value = row.values.get(str(column))
        if value is None and part == "input":
            return ""
        if not isinstance(value, str):
            raise bad(
                NAME,
                row.where,
                f"its {column} is {type(value).__name__}, not text",
                f"it is {json.dumps(value, default=str)[:100]}",
            )
        return value


def load(options: Mapping[str, str], vocab_size: int) -> Instructions:
    """Opens the rows, and checks the columns of the first file and the template."""
    with_input, without = _templates(options)
    rows = open_rows(NAME, options)
    columns = {part: options.get(part, part) for part in _COLUMNS}
    there = rows.columns()
    needed = ["instruction", "output", *(["input"] if options.get("input", "none") != "none" else [])]
    missing = [columns[part] for part in needed if columns[part] not in there]
    if missing:
        raise BadData(
            what=f"{NAME}: there is no column {', '.join(missing)}",
            why=f"{options.get('path', options.get('hub'))} has {', '.join(there) or 'none'}",
            next=f"name them: {NAME}:path=FILE:instruction=QUESTION:output=ANSWER",
        )
    named: dict[str, str | None] = {**columns, "input": None if columns["input"] == "none" else columns["input"]}
    return Instructions(rows, named, with_input, without)


def _templates(options: Mapping[str, str]) -> tuple[Template, Template]:
    """With an input, and without one."""
    named = options.get("template", "stanford")
    if named in _TEMPLATES:
        if "template_no_input" in options:
            raise BadExperiment(
                what=f"{NAME}: template_no_input goes with a template of your own",
                why=f"{named} has its own form for rows without an input",
                next="give template=FILE too, or leave it out",
            )
        with_input, without = _TEMPLATES[named]
        return Template(with_input, named), Template(without, named)
    first = Template(_read(named), repr(named))
    if "template_no_input" not in options:
        return first, first
    return first, Template(_read(options["template_no_input"]), repr(options["template_no_input"]))


def _read(name: str) -> str:
    try:
        # A file ends in a line's end, which is not of the template.
        return Path(name).expanduser().read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadExperiment(
            what=f"{NAME}: there is no template {name!r}",
            why=f"it is none of the known ones, and no file of text: {error}",
            next=did_you_mean(name, _TEMPLATES),
        ) from error
