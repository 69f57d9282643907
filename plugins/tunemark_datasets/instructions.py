"""The dataset `alpaca`: instructions with answers from the columns of any table, formatted by a template.

The default template is Stanford Alpaca's (Taori et al. 2023, "Stanford Alpaca: An Instruction-following LLaMA model"),
whose prompt differs for rows without an input.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.plugin.descriptors import Example, ExamplePiece
from tunemark_datasets import sections_template
from tunemark_datasets.files import read_template
from tunemark_datasets.row_errors import BadRow
from tunemark_datasets.row_forms import check_no_preference, format_left_out
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

NAME = "alpaca"
OPTIONS = {
    **ROW_OPTIONS,
    "instruction": "the instruction's column (instruction)",
    "input": "the input's column (input, if there is one); none: no row has an input",
    "output": "the answer's column (output)",
    "template": "stanford (the default), sections (as python-code-alpaca), plain, or a file with {instruction}, "
    "{input} and {output}: the text before {output} is the prompt",
    "template_no_input": "another file, for rows without an input",
}
# Options by the names of columns in LLaMA-Factory's dataset_info.json.
_REGISTERED = {"prompt": "instruction", "query": "input", "response": "output"}
_PARTS = ("instruction", "input", "output")
_PLACEHOLDER = re.compile(r"\{(instruction|input|output)\}")
_TASK = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
_ANSWER = "### Response:\n{output}"
_PAIRED = f"{_TASK}, paired with an input that provides further context. {_WRITE}### Input:\n{{input}}\n\n{_ANSWER}"
_SECTIONS = sections_template.format_prompt("{instruction}", "{input}") + "{output}"
# name: (template with an input, template without one)
_TEMPLATES = {
    "stanford": (_PAIRED, f"{_TASK}. {_WRITE}{_ANSWER}"),
    "sections": (_SECTIONS, _SECTIONS),
    "plain": ("{instruction}\n{input}\n{output}", "{instruction}\n{output}"),
}
# Part of the fingerprint: change it whenever the same rows would give different examples.
_FORMAT_VERSION = "1"


class PromptTemplate:
    """Text with placeholders for columns. The text before {output} is the prompt, the rest the response."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        names = _PLACEHOLDER.findall(text)
        if names.count("output") != 1 or "instruction" not in names:
            raise BadExperiment(
                what=f"{where} is not a template for {NAME}",
                why=f"it has {', '.join(f'{{{n}}}' for n in names) or 'no placeholder'}; it needs {{instruction}}, and "
                "{output} exactly once",
                next="write {instruction}, {input} and {output} where they belong; other braces are kept as text",
            )
        if "instruction" in names[names.index("output") :] or "input" in names[names.index("output") :]:
            raise BadExperiment(
                what=f"{where} is not a template for {NAME}",
                why="a part of the prompt comes after {output}, where the model has already answered",
                next="put {output} after {instruction} and {input}",
            )
        before, after = re.split(r"\{output\}", text)
        self._prompt, self._suffix = before, after

    def make_example(self, instruction: str, input: str, output: str, where: str) -> Example:
        values = {"instruction": instruction, "input": input}
        prompt = _PLACEHOLDER.sub(lambda m: values[m[1]], self._prompt)
        return Example(
            pieces=(
                ExamplePiece(role="prompt", text=prompt),
                ExamplePiece(role="response", text=output + self._suffix),
            ),
            where=where,
        )


class Instructions:
    """One example per row. columns: the column of each part; None for the input if no row has one."""

    def __init__(
        self,
        rows: FileRows | HubRows,
        columns: Mapping[str, str | None],
        with_input: PromptTemplate,
        without: PromptTemplate,
        skipped: SkippedRows,
    ) -> None:
        self._rows, self._columns = rows, columns
        self._with_input, self._without_input = with_input, without
        self._skipped, self._left_out = skipped, LeftOutText(columns.values())
        self._empty_answers = 0

    def fingerprint(self) -> str:
        texts = [self._with_input.text, self._without_input.text]
        identity = [_FORMAT_VERSION, self._rows.fingerprint(), dict(self._columns), texts]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        return {
            **self._rows.facts(),
            "columns": dict(self._columns),
            "template": self._with_input.text,
            "template_no_input": self._without_input.text,
            **self._skipped.facts(),
            "left_out": self._left_out.facts(),
        }

    def remarks(self) -> list[str]:
        found, remarks = self._left_out.facts(), []
        if self._empty_answers:
            remarks.append(
                f"{self._empty_answers:,} rows have an empty {self._columns['output']}: only its end is trained on"
            )
        if not found:
            return remarks
        words = f"{NAME} uses no other columns; left out are {format_left_out(found)}"
        if {"system", "history"} & set(found):
            words += "; chat:path=FILE makes conversations of the same rows, with their system and history"
        return [*remarks, words]

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
        instruction = self._text(row, "instruction")
        input = self._text(row, "input") if self._columns["input"] is not None else ""
        template = self._with_input if input.strip() else self._without_input
        output = self._text(row, "output")
        self._empty_answers += not output.strip()
        return template.make_example(instruction, input, output, row.where)

    def _text(self, row: DataRow, part: str) -> str:
        return read_text(NAME, row, str(self._columns[part]), may_lack=part == "input")


def load(options: Mapping[str, str], vocab_size: int) -> Instructions:
    """Open the rows, and check the template and the first file's columns."""
    with_input, without = _choose_templates(options)
    options = resolve_entry(NAME, options, _REGISTERED)
    rows, skipped = open_rows(NAME, options), SkippedRows(NAME, options)
    columns = {part: options.get(part, part) for part in _PARTS}
    available = rows.columns()
    source = options.get("path", options.get("hub", ""))
    check_no_preference(NAME, available, columns.values(), source)
    needed = ["instruction", "output", *(["input"] if options.get("input", "none") != "none" else [])]
    missing = [columns[part] for part in needed if columns[part] not in available]
    advice = f"name them: {NAME}:path=FILE:instruction=QUESTION:output=ANSWER"
    check_columns(NAME, rows, source, available, missing, advice)
    named: dict[str, str | None] = {**columns, "input": None if columns["input"] == "none" else columns["input"]}
    return Instructions(rows, named, with_input, without, skipped)


def _choose_templates(options: Mapping[str, str]) -> tuple[PromptTemplate, PromptTemplate]:
    """(template with an input, template without one)."""
    named = options.get("template", "stanford")
    if named in _TEMPLATES:
        if "template_no_input" in options:
            raise BadExperiment(
                what=f"{NAME}: template_no_input needs template=FILE",
                why=f"the template {named} has its own form for rows without an input",
                next="add template=FILE, or leave out template_no_input",
            )
        with_input, without = _TEMPLATES[named]
        return PromptTemplate(with_input, named), PromptTemplate(without, named)
    first = PromptTemplate(_read_template(named), repr(named))
    if "template_no_input" not in options:
        return first, first
    return first, PromptTemplate(_read_template(options["template_no_input"]), repr(options["template_no_input"]))


def _read_template(name: str) -> str:
    why = "it is not a built-in template, and not a readable text file: "
    # The newline that ends the file is not part of the template.
    return read_template(NAME, name, why=why, next=did_you_mean(name, _TEMPLATES)).removesuffix("\n")
