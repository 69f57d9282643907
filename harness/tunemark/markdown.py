"""Markdown for terminals and files: tables, and texts escaped so that nothing in them is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tunemark.visible_text import make_visible


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table. align: "<" for a column of texts, ">" for one of numbers; its last one holds for the columns after it.

    No cell can break the table: each becomes one line, and its bars are escaped unless they are already."""
    rules = ("---:|" if side == ">" else "---|" for side in align.ljust(len(header), align[-1]))
    lines = [f"| {' | '.join(header)} |", "|" + "".join(rules)]
    return "\n".join([*lines, *(f"| {' | '.join(map(_one_line, row))} |" for row in rows)])


def escape(text: str) -> str:
    """The text on one line, with the characters escaped that are Markdown syntax."""
    if _is_plain(text) and "  " not in text:
        return text
    parts = _COMMAND.split(re.sub(r"\s+", " ", text))
    # Each second part is a command of ours, whose marks of code stay.
    return make_visible("".join(part if i % 2 else _escape_syntax(r"\\\1", part) for i, part in enumerate(parts)))


def unescape(text: str) -> str:
    """The text as `escape` was given it, but for its white space."""
    return re.sub(rf"\\({_SYNTAX})", r"\1", text)


def _one_line(cell: str) -> str:
    if "|" not in cell and "\n" not in cell:
        return make_visible(cell)
    return make_visible(" ".join(re.sub(r"(?<!\\)\|", r"\\|", cell).split()))


_SYNTAX = r"[\\`*_\[\]<>|~]"
# An underline within a word is no markup.
_escape_syntax = re.compile(r"([\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))").sub
_COMMAND = re.compile(r"(`tunemark [A-Za-z0-9 =:,./+-]*`)")
# Most texts have nothing to escape.
_is_plain = re.compile(r"[A-Za-z0-9 .,:;%/()+=±·-]*").fullmatch
