"""Results on standard output: laid out for a terminal and its width, and as Markdown where they are piped.

Tables come in as Markdown, the only form in which all commands and reports make them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from tunemark.markdown import unescape
from tunemark.visible_text import make_visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Columns that a narrow terminal keeps for as long as it can, after the first one.
_KEPT = ("verdict", "outcome", "tokens/s (content)", "tokens/s", "status")
# A text in a column is not broken into lines shorter than this.
_TEXT_WIDTH = 16
_GAP = 2
_STYLES = {
    r"(?<![\w-])(?:VALID|valid|pass|PASS)(?![\w-])": "green",
    r"(?<![\w-])(?:SUSPECT|suspect|unknown|no verdict|NO VERDICT)(?![\w-])": "yellow",
    r"(?<![\w-])(?:INVALID|invalid|failed|FAILED|fail|FAIL|oom|killed)(?![\w-])": "bold red",
}

_is_markdown_wanted = False


def print_as_markdown() -> None:
    """Make `print_result` print Markdown on terminals, too."""
    global _is_markdown_wanted  # the choice of one command line, made once
    _is_markdown_wanted = True


def print_result(markdown: str) -> None:
    """Print a result: as it is unless standard output is a terminal, on which its tables are aligned and fitted."""
    markdown = make_visible(markdown)
    if _is_markdown_wanted or not sys.stdout.isatty():
        print(markdown)
        return
    from rich.console import Console  # heavy, and only needed on a terminal

    print_on_terminal(markdown, Console(highlight=False, markup=False, emoji=False))


def print_on_terminal(markdown: str, console: Console) -> None:
    """Print a result on a terminal: tables fitted to its width, no escapes, colours for verdicts beside their words."""
    for is_table, lines in groupby(markdown.split("\n"), key=lambda line: line.startswith("|")):
        if is_table:
            _print_table(_parse_table(list(lines)), console)
        else:
            for line in lines:
                console.print(_highlight(unescape(line)))


@dataclass(frozen=True, slots=True)
class _TextColumn:
    """A column of a table. cells: without its heading. is_number: aligned to the right and never broken."""

    heading: str
    cells: list[str]
    is_number: bool

    def least_width(self) -> int:
        """Cells of the terminal below which the column cannot be read."""
        from rich.cells import cell_len

        heading = max(map(cell_len, self.heading.split() or [""]))
        if self.is_number:
            return max([heading, *map(cell_len, self.cells)])
        words = [word for cell in self.cells for word in cell.split()]
        widest = max(map(cell_len, self.cells), default=0)
        return max(heading, min(widest, max([_TEXT_WIDTH, *(min(cell_len(word), 24) for word in words)])))

    def full_width(self) -> int:
        """Cells of the terminal that the column fills if nothing is broken."""
        from rich.cells import cell_len

        return max(map(cell_len, [self.heading, *self.cells]))


def _parse_table(lines: list[str]) -> list[_TextColumn]:
    rows = [[unescape(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    heading, rules, *body = rows
    return [
        _TextColumn(name, [row[at] if at < len(row) else "" for row in body], rules[at].endswith(":"))
        for at, name in enumerate(heading)
    ]


def _print_table(columns: list[_TextColumn], console: Console) -> None:
    widths = _fit_columns(columns, console.width)
    hidden = [column.heading for column, width in zip(columns, widths, strict=True) if width == 0]
    if hidden and len(columns[0].cells) == 1:
        # One row is read as well from top to bottom.
        console.print(_turn_table(columns))
        return
    shown = [(column, width) for column, width in zip(columns, widths, strict=True) if width]
    table = _make_empty_table()
    for column, width in shown:
        side: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.heading, justify=side, overflow="fold", width=width)
    for row in zip(*(column.cells for column, _ in shown), strict=True):
        table.add_row(*map(_highlight, row))
    console.print(table)
    if hidden:
        words = f"no room for: {', '.join(hidden)} (a wider terminal, --markdown or --json shows them)"
        console.print(words, style="dim")


def _turn_table(columns: list[_TextColumn]) -> Table:
    """A table of one row, its headings in the first column."""
    table = _make_empty_table()
    table.show_header = False
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for column in columns:
        table.add_row(column.heading, _highlight(column.cells[0]))
    return table


def _make_empty_table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")


def _fit_columns(columns: list[_TextColumn], width: int) -> list[int]:
    """The width of each column, 0 if it is left out: the first column comes first, then those that say what came out,
    then the others from the left, each as wide as it must be; what is left is shared out from the left."""
    ranked = sorted(range(len(columns)), key=lambda at: (at > 0, _rank(columns[at].heading), at))
    widths = [0] * len(columns)
    left = width + _GAP
    for at in ranked:
        least = min(columns[at].least_width(), width)
        if least + _GAP <= left:
            widths[at] = least
            left -= least + _GAP
    for at, least in enumerate(widths):
        if least:
            wider = min(left, max(0, columns[at].full_width() - least))
            widths[at] += wider
            left -= wider
    return widths


def _rank(heading: str) -> int:
    return _KEPT.index(heading) if heading in _KEPT else len(_KEPT)


def _highlight(words: str) -> Text:
    from rich.text import Text

    text = Text(words)
    for pattern, style in _STYLES.items():
        text.highlight_regex(pattern, style)
    return text
