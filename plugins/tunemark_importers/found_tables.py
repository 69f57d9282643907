"""Finds the tables in a text: separated values, Markdown, boxes, columns aligned by blanks, HTML, LaTeX, and records of
named facts (JSON objects, `name: value` lines, a column of names beside columns of values), which are tables turned by
ninety degrees or without a frame. What their headers mean is not decided here.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from tunemark_importers.latex_tables import rows_of_latex
from tunemark_importers.numbers import parse_number

_RULE = re.compile(r"[\s|+:=\-\u2500-\u257f]{3,}")
_BAR = re.compile(r"[|\u2502\u2503\u2551]")
_GAP = re.compile(r"\s{2,}")
_MAX_HEADER = 64
# So many tables of a text are looked at.
_MAX_TABLES = 200
# Records of facts are written by hand or by one call: they are short.
_MAX_RECORD = 1 << 16
_MAX_RECORDS = 10_000
_THOUSANDS = re.compile(r"(?<![0-9,])[0-9]{1,3},[0-9]{3}(?![0-9])")
_SECTION = re.compile(r"\s*\[{1,2}[\w.\"' -]{1,80}\]{1,2}\s*")
_FACT = re.compile(r"\s{0,8}(?:- )?[\"']?([A-Za-z][\w /().#-]{0,60}?)[\"']?\s*(?::\s|:$|=)\s*(.{0,200}?)\s*,?\s*")


@dataclass(frozen=True, slots=True)
class FoundTable:
    """names: the headers. rows: each with its line in the text, from 1. delimiter: of separated values, else ''.
    is_aligned: whether blanks alone divide its columns, as also in a log. is_turned: whether it is the table before,
    with names in the first column."""

    names: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]
    delimiter: str = ""
    is_aligned: bool = False
    is_turned: bool = False


def find_tables(text: str) -> Iterator[FoundTable]:
    """The tables in a text, in their order: of a whole file of separated values or of records, or those that stand in
    Markdown, HTML or a log. What cannot be a header is none."""
    text = _without_remarks(text.lstrip("\ufeff"))
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if first[:1] in "[{" and not _SECTION.fullmatch(first):
        yield from _of_json(text)
        return
    if "<table" in text or "<TABLE" in text:
        yield from _of_html(text)
    if "\\begin{tabular" in text:
        for rows in itertools.islice(rows_of_latex(text), _MAX_TABLES):
            if len(rows) > 1 and looks_like_a_header(rows[0][1]):
                yield FoundTable(rows[0][1], rows[1:])
                yield from _turned(rows)
        return
    if not _BAR.match(first.strip()) and not first.startswith(("#", "+", "\u250c", "\u2554", "<")):
        for delimiter in sorted("\t;,", key=first.count, reverse=True):
            # A comma within a number divides no cells.
            is_number = delimiter == "," and _THOUSANDS.search(first)
            if delimiter not in first or len(first) >= 1 << 14 or is_number:
                continue
            rows = list(_separated(text, delimiter))
            if rows and looks_like_a_header(rows[0][1]) and _are_its_rows(rows):
                yield FoundTable(rows[0][1], rows[1:], delimiter)
                yield from _turned(rows, delimiter)
                return
    yield from _of_facts(lines)
    yield from _framed(lines)
    yield from _aligned(lines)


def _are_its_rows(rows: Sequence[tuple[int, Sequence[str]]]) -> bool:
    """Whether most rows have as many cells as the header: above a table in Markdown, a sentence may have a comma."""
    alike = sum(len(cells) == len(rows[0][1]) for _, cells in rows[1:])
    return 2 * alike >= len(rows) - 1


def _without_remarks(text: str) -> str:
    """The text with remarks above separated values made blank; headings of Markdown stay."""
    if not text.startswith("#"):
        return text
    lines = text.splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if first is None or first > _MAX_HEADER or not re.match(r"[A-Za-z][\w /().-]*[,;\t][^|]*$", lines[first].strip()):
        return text
    return "\n" * first + "".join(lines[first:])


def looks_like_a_header(names: Sequence[str]) -> bool:
    """Whether cells may be headers: words, and no values beside them."""
    named = [name for name in names if name.strip()]
    if not 1 < len(named) <= _MAX_HEADER or any(parse_number(name) is not None or len(name) > 80 for name in named):
        return False
    # Fields of a log or of a dictionary have their values beside them, and a bar divides its own fields.
    return not any(re.search(r"[{}=|]|:\s|[\"']", name) for name in named)


def _framed(lines: Sequence[str]) -> Iterator[FoundTable]:
    count, at = 0, 0
    while at < len(lines) and count < _MAX_TABLES:
        if not _BAR.search(lines[at]) or _RULE.fullmatch(lines[at]):
            at += 1
            continue
        names = _cells(lines[at])
        below = at + 1
        if below < len(lines) and _RULE.fullmatch(lines[below]) and len(names) > 1:
            below += 1
        elif not (at and _RULE.fullmatch(lines[at - 1])):
            at += 1
            continue
        rows = []
        while below < len(lines) and (_BAR.search(lines[below]) or _RULE.fullmatch(lines[below])):
            if not _RULE.fullmatch(lines[below]):
                rows.append((below + 1, _cells(lines[below])))
            below += 1
        if looks_like_a_header(names) and rows:
            count += 1
            yield FoundTable(names, rows)
            yield from _turned([(at + 1, names), *rows])
        at = below


def _aligned(lines: Sequence[str]) -> Iterator[FoundTable]:
    """Columns that two blanks or more divide, as pandas and reStructuredText write them."""
    count, at = 0, 0
    while at + 1 < len(lines) and count < _MAX_TABLES:
        names = _GAP.split(lines[at].strip()) if "  " in lines[at].strip() and len(lines[at]) < 2000 else []
        if len(names) < 2 or _BAR.search(lines[at]) or _RULE.fullmatch(lines[at]) or not looks_like_a_header(names):
            at += 1
            continue
        below, rows = at + 1, []
        while below < len(lines) and len(lines[below]) < 2000:
            if not _RULE.fullmatch(lines[below]):
                cells = _GAP.split(lines[below].strip())
                # pandas writes the row's number before it.
                cells = cells[1:] if len(cells) == len(names) + 1 and cells[0].isdigit() else cells
                if len(cells) != len(names):
                    break
                rows.append((below + 1, cells))
            below += 1
        if rows:
            count += 1
            yield FoundTable(names, rows, is_aligned=True)
        at = max(below, at + 1)


def _turned(rows: Sequence[tuple[int, Sequence[str]]], delimiter: str = "") -> Iterator[FoundTable]:
    """Names in the first column, and a run in each other one."""
    names = [cells[0] for _, cells in rows if cells]
    width = min(len(cells) for _, cells in rows)
    if width < 2 or not looks_like_a_header(names) or len(set(names)) < len(names):
        return
    first = rows[0][0]
    turned = [(first, [cells[at] for _, cells in rows]) for at in range(1, width)]
    yield FoundTable(names, turned, delimiter, is_turned=True)


def _of_facts(lines: Sequence[str]) -> Iterator[FoundTable]:
    """A text in which each line names one fact: of one record, or of one behind each dash of a list, as in YAML.
    Headings of sections, as in TOML, are passed over."""
    kept = [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith(("#", "---", "...")) and not _SECTION.fullmatch(line)
    ]
    named = [
        match[1] for _, line in kept[: 2 * _MAX_HEADER] if (match := _FACT.fullmatch(line)) and re.search("[0-9]", line)
    ]
    forms = [re.sub(r"[0-9]+", "0", name) for name in named if re.search("[0-9]", name)]
    if len(set(forms)) < len(forms):
        # `step 1 tokens/s: 4096` and `step 2 tokens/s: 4098` are lines of a log.
        return
    shared: dict[str, str] = {}
    dashes = [re.match(r" *(?=- )", line) for _, line in kept]
    began = next((at for at, dash in enumerate(dashes) if dash is not None), 0)
    if began and (above := [_FACT.fullmatch(line) for _, line in kept[:began]]) and all(above):
        # `results:` stands above the list, and facts that all its records share.
        found = [match for match in above if match is not None]
        if found[-1][2] == "" and all(match[2] for match in found[:-1]):
            shared = {match[1]: match[2].strip("\"'") for match in found[:-1]}
            kept, dashes = kept[began:], dashes[began:]
    is_list = bool(kept) and dashes[0] is not None
    if len(kept) < (2 if is_list else 3) or len(kept) > (_MAX_RECORDS if is_list else _MAX_HEADER):
        return
    records: list[tuple[int, dict[str, str]]] = []
    for (number, line), dash in zip(kept, dashes, strict=True):
        match = _FACT.fullmatch(line)
        if match is None or (dash is not None and not is_list):
            return
        if not records or dash is not None:
            records.append((number, dict(shared)))
        if match[1] in records[-1][1] and match[1] not in shared:
            return
        records[-1][1][match[1]] = match[2].strip("\"'")
    names = list(dict.fromkeys(name for _, record in records for name in record))
    if 1 < len(names) <= _MAX_HEADER:
        yield FoundTable(names, [(number, [one.get(name, "") for name in names]) for number, one in records])


def _of_json(text: str) -> Iterator[FoundTable]:
    """An object of facts, or a list of such objects, each a row."""
    if len(text) > _MAX_RECORD:
        return
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        inner = [value for value in found.values() if isinstance(value, list) and value and _are_objects(value)]
        if len(inner) == 1:
            # What stands beside the list is of each of its objects.
            shared = {name: value for name, value in found.items() if not isinstance(value, list | dict)}
            found = [{**shared, **one} for one in inner[0]]
        elif len(found) > 1 and _are_objects([*found.values()]) and _have_the_same_names([*found.values()]):
            # Objects by the names of runs.
            found = [{"run": name, **one} for name, one in found.items()]
        else:
            found = [found]
    if not isinstance(found, list) or not found or len(found) > _MAX_RECORDS or not _are_objects(found):
        return
    rows = [_flat(one) for one in found]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if 1 < len(names) <= 4 * _MAX_HEADER:
        yield FoundTable(names, [(at, [row.get(name, "") for name in names]) for at, row in enumerate(rows, 1)])


def _have_the_same_names(objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each has most names of the first: they are runs, and not parts of one record."""
    first = set(objects[0])
    return bool(first) and all(2 * len(first & set(one)) > len(first | set(one)) for one in objects)


def _are_objects(values: Sequence[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _flat(found: Mapping[str, Any]) -> dict[str, str]:
    """The facts of an object and of the objects in it, by their own names; one that has two values is left out."""
    facts: dict[str, str] = {}
    twice: set[str] = set()
    todo = [(found, 0)]
    while todo:
        one, depth = todo.pop(0)
        for name, value in one.items():
            if isinstance(value, dict) and depth < 4:
                todo.append((value, depth + 1))
            elif isinstance(value, str | int | float) and not isinstance(value, bool):
                if name in facts and depth:
                    twice.add(name)
                facts[name] = str(value)
    return {name: value for name, value in facts.items() if name not in twice}


class _Tables(HTMLParser):
    """Collects the cells of the tables of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[tuple[int, list[str]]]] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" and len(self.tables) < _MAX_TABLES:
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append((self.getpos()[0], []))
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None and self.tables:
            if not self.tables[-1]:
                self.tables[-1].append((self.getpos()[0], []))
            self.tables[-1][-1][1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)


def _of_html(text: str) -> Iterator[FoundTable]:
    parser = _Tables()
    parser.feed(text)
    for found in parser.tables:
        rows = [(line, cells) for line, cells in found if any(cells)]
        if len(rows) > 1 and looks_like_a_header(rows[0][1]):
            yield FoundTable(rows[0][1], rows[1:])


def _separated(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error:
        return


def _cells(line: str) -> list[str]:
    text = line.strip()
    cells = _BAR.split(text)
    if _BAR.match(text):
        cells = cells[1:]
    if cells and not cells[-1].strip():
        cells = cells[:-1]
    return [re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", cell).strip() for cell in cells]
