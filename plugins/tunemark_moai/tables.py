"""Find the bordered tables that the platform's tools print, with their titles, header and rows.

Cells are split at the bars, never at screen columns, because widths follow the contents. Three kinds of damage are
repaired, since the original is still certain: lost line breaks, rows that a narrow terminal wrapped (all at one width,
which their border shows), and empty lines in between. Anything else that does not fit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, strip_markup

# A border has at least four characters: `+++` and `---` are the file headers of a diff.
_WHOLE_BORDER = re.compile(r"[-=+]{4,}")
_BORDER_IN_LINE = re.compile(r"(\+[-=]{3}[-=+]*)")
_BORDER_REST = re.compile(r"[-=+]*")
_TITLE = re.compile(r"\bVersion\b|^Moreh-SMI\b", re.I)
# Lines of a training program that shares the terminal: the platform's messages, loguru's lines, and tqdm's bars.
_LOG = re.compile(
    r"(?:\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+\] *)?\[(?:info|warning|error)\] "
    r"|(?:[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.,]+ *)?[|] *(?:TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR|CRITICAL) +[|]"
    r"|[^|]{0,80}\b[0-9]{1,3}%[|]"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableKind:
    """A kind of table, identified by its column names in lower case.

    first: the first column. known: all possible columns, including the first. needed: sets of columns, at least one
    of which must be complete. verbatim: the column whose cells may contain bars themselves, if any.
    """

    name: str
    first: str
    known: frozenset[str]
    needed: tuple[frozenset[str], ...]
    verbatim: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row: its line, and its cells by column name."""

    line: TerminalLine
    cells: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class BorderedTable:
    """One table. before: other lines since the previous table. titles: the text of the rows above the header."""

    kind: TableKind
    before: tuple[TerminalLine, ...]
    titles: tuple[TerminalLine, ...]
    header: TerminalLine
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def find_tables(lines: Sequence[TerminalLine], kinds: Sequence[TableKind]) -> list[BorderedTable]:
    """All tables in order. Raises `UnreadableOutput` for a row, header or table that is not understood."""
    reader = _TableReader(kinds=kinds)
    pieces = [piece for line in lines for piece in _split_glued(line)]
    for whole in _join_wrapped(pieces):
        reader.take(whole)
    return reader.finish()


def find_last(tables: Sequence[BorderedTable], kind: TableKind, expected: str) -> BorderedTable:
    """The last table of a kind; `UnreadableOutput` where there is none."""
    found = [table for table in tables if table.kind is kind]
    if not found:
        raise UnreadableOutput(what="there is no such table", expected=expected)
    return found[-1]


def has_border(line: TerminalLine) -> bool:
    """Whether a line contains a border of a table."""
    return _BORDER_IN_LINE.search(line.text) is not None


# -- state between lines


@dataclass(kw_only=True, slots=True)
class _OpenTable:
    """A table whose rows are being read. head: it without them."""

    head: BorderedTable
    rows: list[TableRow] = field(default_factory=list)
    borders: int = 0
    is_closed: bool = False


@dataclass(kw_only=True, slots=True)
class _TableReader:
    kinds: Sequence[TableKind]
    done: list[BorderedTable] = field(default_factory=list)
    table: _OpenTable | None = None
    other_lines: list[TerminalLine] = field(default_factory=list)
    titles: list[TerminalLine] = field(default_factory=list)
    foreign_line: TerminalLine | None = None
    """A line inside the open table that does not belong to it: the table's end was lost, or it is damaged."""

    def take(self, line: TerminalLine) -> None:
        text = line.text.strip()
        if not text:
            return
        if _is_border(text):
            self._border(line)
        elif _is_row(text):
            self._row(line, _cells(text))
        elif _LOG.match(text):
            self.other_lines.append(line)
        elif self.table and not self.table.is_closed and text.startswith("|"):
            raise UnreadableOutput(
                what="a row of the table is cut off", line=line, expected="a row that ends with a bar, |"
            )
        else:
            self._other(line)

    def finish(self) -> list[BorderedTable]:
        self._close()
        return self.done

    def _border(self, line: TerminalLine) -> None:
        if not self.table:
            return
        self._refuse_foreign_line(self.table)
        self.table.borders += 1
        # The first border is below the header, so the second one ends a table without rows.
        self.table.is_closed = bool(self.table.rows) or self.table.borders > 1

    def _row(self, line: TerminalLine, cells: list[str]) -> None:
        filled = [cell for cell in cells if cell]
        # A title fills a row; where line breaks were lost, an empty cell separates two titles.
        are_titles = filled == cells[::2] or len(filled) == 1
        if filled and are_titles and all(_TITLE.search(cell) for cell in filled):
            self._close()
            self.titles += [TerminalLine(number=line.number, text=cell) for cell in filled]
            return
        words = tuple(_column_name(cell) for cell in cells)
        kind = self._kind(words)
        if kind:
            self._close()
            before, titles = tuple(self.other_lines), tuple(self.titles)
            head = BorderedTable(kind=kind, before=before, titles=titles, header=line, columns=words, rows=())
            self.table = _OpenTable(head=head)
            self.other_lines, self.titles = [], []
        elif self.table and not self.foreign_line:
            self.table.rows += [
                _match_cells(self.table, TerminalLine(number=line.number, text=t)) for t in self._pieces(line)
            ]
            self.table.is_closed = False
        elif len(cells) == 1:
            self.titles.append(TerminalLine(number=line.number, text=cells[0]))
        else:
            if self.table:
                self._refuse_foreign_line(self.table)
            raise self._unknown(line, words)

    def _refuse_foreign_line(self, table: _OpenTable) -> None:
        if self.foreign_line:
            raise UnreadableOutput(
                what="there is a line in the table that is not part of it",
                line=self.foreign_line,
                expected=_describe_row(table),
            )

    def _other(self, line: TerminalLine) -> None:
        if self.table and self.table.is_closed:
            self._close()
        elif self.table and strip_markup(line.text).strip().casefold() != "processes:":
            self.foreign_line = self.foreign_line or line
        elif self.table:
            self._close()
        self.titles = []
        self.other_lines.append(line)

    def _close(self) -> None:
        if self.table:
            done = self.table
            if not done.rows and not done.is_closed:
                expected = "its rows, or its last border"
                raise UnreadableOutput(what="the table ends after its header", line=done.head.header, expected=expected)
            self.done.append(replace(done.head, rows=tuple(done.rows)))
        self.table, self.foreign_line = None, None

    def _kind(self, words: tuple[str, ...]) -> TableKind | None:
        for kind in self.kinds:
            if set(words) <= kind.known and words[0] == kind.first and any(n <= set(words) for n in kind.needed):
                return kind if len(set(words)) == len(words) else None
        return None

    def _pieces(self, line: TerminalLine) -> list[str]:
        """The rows in one line: several where line breaks were lost, so that two bars are adjacent."""
        assert self.table
        pieces = line.text.strip().split("||")
        count = len(self.table.head.columns)
        whole = [f"|{piece.strip('|')}|" for piece in pieces]
        if len(pieces) > 1 and all(len(_cells(piece)) == count for piece in whole):
            return whole
        return [line.text.strip()]

    def _unknown(self, line: TerminalLine, words: tuple[str, ...]) -> UnreadableOutput:
        known = sorted({word for kind in self.kinds for word in kind.known})
        unknown = [word for word in words if word not in known]
        if words[0] in {kind.first for kind in self.kinds} and unknown:
            what = f"the table's header has unknown columns: {', '.join(unknown)}"
        else:
            what = "there is a row without a known header above it"
        return UnreadableOutput(what=what, line=line, expected=f"a header of these columns: {', '.join(known)}")


def _match_cells(table: _OpenTable, line: TerminalLine) -> TableRow:
    """A row's cells by column; the `verbatim` column takes the surplus cells, joined by bars."""
    cells = _cells(line.text, keep=True)
    columns = table.head.columns
    extra = len(cells) - len(columns)
    if extra > 0 and table.head.kind.verbatim in columns:
        at = columns.index(table.head.kind.verbatim)
        cells[at : at + extra + 1] = ["|".join(cells[at : at + extra + 1])]
    if len(cells) != len(columns):
        raise UnreadableOutput(
            what=f"a row of the table has {len(cells)} cells, its header {len(columns)}",
            line=line,
            expected=_describe_row(table),
        )
    return TableRow(line=line, cells={word: _strip_cell(cell) for word, cell in zip(columns, cells, strict=True)})


def _describe_row(table: _OpenTable) -> str:
    return f"a row of {len(table.head.columns)} cells between bars ({', '.join(table.head.columns)}), or a border"


# -- one line


def _is_border(text: str) -> bool:
    text = text.strip()
    return _WHOLE_BORDER.fullmatch(text) is not None and set(text) != {"+"}


def _is_row(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and text.startswith("|") and text.endswith("|") and not _LOG.match(text)


def _cells(text: str, *, keep: bool = False) -> list[str]:
    """The texts between the bars. keep: with their blanks and bold marks."""
    cells = text.strip()[1:-1].split("|")
    return cells if keep else [_strip_cell(cell) for cell in cells]


def _strip_cell(cell: str) -> str:
    """A cell without surrounding blanks or Markdown bold."""
    cell = cell.strip()
    if len(cell) > 4 and cell.startswith("**") and cell.endswith("**"):
        return cell[2:-2].strip()
    return cell


def _column_name(cell: str) -> str:
    """A column name with normalised blanks, in lower case."""
    return re.sub(r"\s*\(\s*", "(", " ".join(cell.split())).casefold()


# -- repair


def _split_glued(line: TerminalLine) -> Iterator[TerminalLine]:
    """The original lines of a line whose line breaks were lost, split at its borders."""
    is_whole = _is_border(line.text) and "++" not in line.text
    if is_whole or not _BORDER_IN_LINE.search(line.text) or _LOG.match(line.text.strip()):
        yield line
        return
    for piece in _BORDER_IN_LINE.split(line.text):
        # Two adjacent borders have adjacent corners.
        for part in piece.replace("++", "+\n+").split("\n") if _is_border(piece) else [piece]:
            if part.strip():
                yield TerminalLine(number=line.number, text=part.rstrip())


def _join_wrapped(lines: Sequence[TerminalLine]) -> Iterator[TerminalLine]:
    """Lines that a narrow terminal wrapped, joined again: a border shows both widths, and the rows follow it."""
    at, shown, printed = 0, 0, 0
    while at < len(lines):
        first = lines[at].text
        if _is_border(first) and first.startswith("+"):
            shown, printed = len(first), _border_length(lines, at)
        pieces = -(-printed // shown) if shown else 1
        if pieces > 1 and first[:1] in ("+", "|") and at + pieces <= len(lines):
            whole = "".join(line.text.ljust(shown) for line in lines[at : at + pieces]).rstrip()
            if len(whole) == printed and whole[-1] in "+|" and whole[0] == whole[-1]:
                yield TerminalLine(number=lines[at].number, text=whole)
                at += pieces
                continue
        yield lines[at]
        at += 1


def _border_length(lines: Sequence[TerminalLine], at: int) -> int:
    """The original length of the border that begins here, including its continuation in the next lines."""
    whole = lines[at].text
    width = len(whole)
    for line in lines[at + 1 :]:
        goes_on = len(whole) % width == 0 and not (whole.endswith("+") and line.text.startswith("+"))
        if not goes_on or not 0 < len(line.text) <= width or not _BORDER_REST.fullmatch(line.text):
            break
        whole += line.text
    return len(whole) if whole.endswith("+") else width
