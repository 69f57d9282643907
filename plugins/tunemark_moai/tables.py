"""The bordered tables that the platform's tools print: where they are, their titles, their header and their rows.

Cells are divided at the bars and never at columns of the screen, because widths follow the contents. Three kinds of
damage are undone, since what was printed can still be told with certainty: line breaks that were lost, rows that a
narrow terminal broke (all at one width, as their border shows), and empty lines in between. All else that does not
fit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tunemark_moai.terminal import Line, UnreadableOutput, unmarked

# Four signs are the least that is taken for a border: `+++` and `---` head the files of a diff.
_WHOLE_BORDER = re.compile(r"[-=+]{4,}")
_GLUED = re.compile(r"(\+[-=]{3}[-=+]*)")
_REST_OF_BORDER = re.compile(r"[-=+]*")
_TITLE = re.compile(r"\bVersion\b|^Moreh-SMI\b", re.I)
# Lines of a training program, which may share the terminal: its platform's, those of Python's loguru, and tqdm's bars.
_LOG = re.compile(
    r"(?:\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+\] *)?\[(?:info|warning|error)\] "
    r"|(?:[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.,]+ *)?[|] *(?:TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR|CRITICAL) +[|]"
    r"|[^|]{0,80}\b[0-9]{1,3}%[|]"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A sort of table, known by the words of its header.

    first: the word of its first column. known: all words that may stand there, the first included. needed: sets of
    words; one whole set must be there. verbatim: the column whose cells may hold bars themselves, if any.
    """

    name: str
    first: str
    known: frozenset[str]
    needed: tuple[frozenset[str], ...]
    verbatim: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row: where it stands, and its cells by their column's word."""

    line: Line
    cells: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table. before: other lines since the last table. titles: the text of the rows above the header."""

    kind: Kind
    before: tuple[Line, ...]
    titles: tuple[Line, ...]
    header: Line
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def tables_of(lines: Sequence[Line], kinds: Sequence[Kind]) -> list[Table]:
    """All tables in their order. Raises `UnreadableOutput` where a row, a header or a table is not understood."""
    reader = _Reader(kinds=kinds)
    unglued = [piece for line in lines for piece in _unglued(line)]
    for whole in _unwrapped(unglued):
        reader.take(whole)
    return reader.finish()


def has_border(line: Line) -> bool:
    """Whether there is a border of a table in a line."""
    return _GLUED.search(line.text) is not None


# -- the state between two lines


@dataclass(kw_only=True, slots=True)
class _Open:
    kind: Kind
    before: tuple[Line, ...]
    titles: tuple[Line, ...]
    header: Line
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    borders: int = 0
    is_closed: bool = False


@dataclass(kw_only=True, slots=True)
class _Reader:
    kinds: Sequence[Kind]
    done: list[Table] = field(default_factory=list)
    table: _Open | None = None
    others: list[Line] = field(default_factory=list)
    titles: list[Line] = field(default_factory=list)
    stranger: Line | None = None
    """A line inside the open table that is none of its parts: its end was lost, or it is damaged."""

    def take(self, line: Line) -> None:
        text = line.text.strip()
        if not text:
            return
        if _is_border(text):
            self._border(line)
        elif _is_row(text):
            self._row(line, _cells(text))
        elif _LOG.match(text):
            self.others.append(line)
        elif self.table and not self.table.is_closed and text.startswith("|"):
            raise UnreadableOutput(
                what="a row of the table is cut off", line=line, expected="a row that ends with a bar, |"
            )
        else:
            self._other(line)

    def finish(self) -> list[Table]:
        self._close()
        return self.done

    def _border(self, line: Line) -> None:
        if not self.table:
            return
        if self.stranger:
            raise UnreadableOutput(
                what="there is a line in the table that is not part of it",
                line=self.stranger,
                expected=_a_row(self.table),
            )
        self.table.borders += 1
        # Below the header stands a border, so the second one ends a table without rows.
        self.table.is_closed = bool(self.table.rows) or self.table.borders > 1

    def _row(self, line: Line, cells: list[str]) -> None:
        filled = [cell for cell in cells if cell]
        # A title has its row to itself; rows whose line break was lost leave an empty cell between them.
        are_titles = filled == cells[::2] or len(filled) == 1
        if filled and are_titles and all(_TITLE.search(cell) for cell in filled):
            self._close()
            self.titles += [Line(number=line.number, text=cell) for cell in filled]
            return
        words = tuple(_word(cell) for cell in cells)
        kind = self._kind(words)
        if kind:
            self._close()
            self.table = _Open(
                kind=kind,
                before=tuple(self.others),
                titles=tuple(self.titles),
                header=line,
                columns=words,
            )
            self.others, self.titles = [], []
        elif self.table and not self.stranger:
            self.table.rows += [_matched(self.table, Line(number=line.number, text=t)) for t in self._pieces(line)]
            self.table.is_closed = False
        elif len(cells) == 1:
            self.titles.append(Line(number=line.number, text=cells[0]))
        elif self.table and self.stranger:
            raise UnreadableOutput(
                what="there is a line in the table that is not part of it",
                line=self.stranger,
                expected=_a_row(self.table),
            )
        else:
            raise self._unknown(line, words)

    def _other(self, line: Line) -> None:
        if self.table and self.table.is_closed:
            self._close()
        elif self.table and unmarked(line.text).strip().casefold() != "processes:":
            self.stranger = self.stranger or line
        elif self.table:
            self._close()
        self.titles = []
        self.others.append(line)

    def _close(self) -> None:
        if self.table:
            done = self.table
            if not done.rows and not done.is_closed:
                raise UnreadableOutput(
                    what="the table ends after its header", line=done.header, expected="its rows, or its last border"
                )
            self.done.append(
                Table(
                    kind=done.kind,
                    before=done.before,
                    titles=done.titles,
                    header=done.header,
                    columns=done.columns,
                    rows=tuple(done.rows),
                )
            )
        self.table, self.stranger = None, None

    def _kind(self, words: tuple[str, ...]) -> Kind | None:
        for kind in self.kinds:
            if set(words) <= kind.known and words[0] == kind.first and any(n <= set(words) for n in kind.needed):
                return kind if len(set(words)) == len(words) else None
        return None

    def _pieces(self, line: Line) -> list[str]:
        """The rows of one line: more than one where line breaks were lost, so that two bars meet."""
        assert self.table
        pieces = line.text.strip().split("||")
        count = len(self.table.columns)
        whole = [f"|{piece.strip('|')}|" for piece in pieces]
        if len(pieces) > 1 and all(len(_cells(piece)) == count for piece in whole):
            return whole
        return [line.text.strip()]

    def _unknown(self, line: Line, words: tuple[str, ...]) -> UnreadableOutput:
        known = sorted({word for kind in self.kinds for word in kind.known})
        strange = [word for word in words if word not in known]
        if words[0] in {kind.first for kind in self.kinds} and strange:
            what = f"the table's header has words that are not known: {', '.join(strange)}"
        else:
            what = "there is a row without a known header above it"
        return UnreadableOutput(what=what, line=line, expected=f"a header of these words: {', '.join(known)}")


def _matched(table: _Open, line: Line) -> Row:
    """A row's cells by column; the column that may hold bars takes what is left between its neighbours."""
    cells = _cells(line.text, keep=True)
    columns = table.columns
    extra = len(cells) - len(columns)
    if extra > 0 and table.kind.verbatim in columns:
        at = columns.index(table.kind.verbatim)
        cells[at : at + extra + 1] = ["|".join(cells[at : at + extra + 1])]
    if len(cells) != len(columns):
        raise UnreadableOutput(
            what=f"a row of the table has {len(cells)} cells, its header {len(columns)}",
            line=line,
            expected=_a_row(table),
        )
    return Row(line=line, cells={word: _bare(cell) for word, cell in zip(columns, cells, strict=True)})


def _a_row(table: _Open) -> str:
    return f"a row of {len(table.columns)} cells between bars ({', '.join(table.columns)}), or a border"


# -- one line


def _is_border(text: str) -> bool:
    text = text.strip()
    return _WHOLE_BORDER.fullmatch(text) is not None and set(text) != {"+"}


def _is_row(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and text.startswith("|") and text.endswith("|") and not _LOG.match(text)


def _cells(text: str, *, keep: bool = False) -> list[str]:
    """What stands between the bars; with `keep` the blanks too."""
    cells = text.strip()[1:-1].split("|")
    return cells if keep else [_bare(cell) for cell in cells]


def _bare(cell: str) -> str:
    """A cell without blanks around it, nor the bold of a document."""
    cell = cell.strip()
    if len(cell) > 4 and cell.startswith("**") and cell.endswith("**"):
        return cell[2:-2].strip()
    return cell


def _word(cell: str) -> str:
    """A header's word, however it is spaced and capitalised."""
    return re.sub(r"\s*\(\s*", "(", " ".join(cell.split())).casefold()


# -- damage


def _unglued(line: Line) -> Iterator[Line]:
    """The lines that one line was before its line breaks were lost, as its borders show."""
    is_whole = _is_border(line.text) and "++" not in line.text
    if is_whole or not _GLUED.search(line.text) or _LOG.match(line.text.strip()):
        yield line
        return
    for piece in _GLUED.split(line.text):
        # Where two borders met, so did their corners.
        for part in piece.replace("++", "+\n+").split("\n") if _is_border(piece) else [piece]:
            if part.strip():
                yield Line(number=line.number, text=part.rstrip())


def _unwrapped(lines: Sequence[Line]) -> Iterator[Line]:
    """Lines made whole again that a narrow terminal broke: first a border shows the two widths, then rows follow it."""
    at, shown, printed = 0, 0, 0
    while at < len(lines):
        first = lines[at].text
        if _is_border(first) and first.startswith("+"):
            shown, printed = len(first), _size_of_border(lines, at)
        pieces = -(-printed // shown) if shown else 1
        if pieces > 1 and first[:1] in ("+", "|") and at + pieces <= len(lines):
            whole = "".join(line.text.ljust(shown) for line in lines[at : at + pieces]).rstrip()
            if len(whole) == printed and whole[-1] in "+|" and whole[0] == whole[-1]:
                yield Line(number=lines[at].number, text=whole)
                at += pieces
                continue
        yield lines[at]
        at += 1


def _size_of_border(lines: Sequence[Line], at: int) -> int:
    """How long the border was that begins here: as long as it is, or longer where it goes on in the next lines."""
    whole = lines[at].text
    width = len(whole)
    for line in lines[at + 1 :]:
        goes_on = len(whole) % width == 0 and not (whole.endswith("+") and line.text.startswith("+"))
        if not goes_on or not 0 < len(line.text) <= width or not _REST_OF_BORDER.fullmatch(line.text):
            break
        whole += line.text
    return len(whole) if whole.endswith("+") else width
