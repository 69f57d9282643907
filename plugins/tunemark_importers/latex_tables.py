"""The cells of tables in LaTeX: of each `tabular` environment its rows, in the words that a reader sees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TABULAR = re.compile(r"\\begin\{(tabular[*xy]?)\}(.*?)\\end\{\1\}", re.S)
# The arguments of the environment: its width and its columns, which may hold braces themselves.
_ARGUMENTS = re.compile(r"\s*(?:\[[^\]]*\])?(?:\{(?:[^{}]|\{[^{}]*\})*\}\s*){1,2}")
_RULES = re.compile(
    r"\\(?:hline|toprule|midrule|bottomrule|addlinespace|endhead|(?:cline|cmidrule)(?:\([^)]*\))?\{[^}]*\})(?:\[[^\]]*\])?"
)
_WORDS = (
    (re.compile(r"(?<!\\)%.*"), ""),
    (re.compile(r"\\times\b"), "x"), (re.compile(r"\\(?:approx|sim)\b"), "~"), (re.compile(r"\\pm\b"), "\u00b1"),
    (re.compile(r"\\(?:text(?:bf|it|tt)?|emph|math(?:bf|rm)|underline|makecell|shortstack)\b(?:\[[^\]]*\])?\s*"), ""),
    (re.compile(r"\\(?:multirow|multicolumn)\{[^}]*\}\{[^}]*\}"), ""),
    (re.compile(r"\\(?:bfseries|centering|small|footnotesize|cellcolor\{[^}]*\}|rowcolor\{[^}]*\})"), ""),
    (re.compile(r"\\([%&#_$])"), r"\1"), (re.compile(r"\\[,;: ]"), " "), (re.compile(r"[{}$]"), ""),
    (re.compile(r"~"), " "),
)  # fmt: skip


def rows_of_latex(text: str) -> Iterator[Sequence[tuple[int, Sequence[str]]]]:
    """The rows of each table, with their lines in the text from 1."""
    for table in _TABULAR.finditer(text):
        arguments = _ARGUMENTS.match(table[2])
        began = table.start(2) + (arguments.end() if arguments else 0)
        line = text.count("\n", 0, began) + 1
        rows: list[tuple[int, list[str]]] = []
        for row in re.split(r"(\\\\(?:\[[^\]]*\])?)", text[began : table.end(2)]):
            words = _RULES.sub("", row)
            cells = [_plain(cell) for cell in re.split(r"(?<!\\)&", words)]
            at = line + words[: len(words) - len(words.lstrip())].count("\n")
            line += row.count("\n")
            if any(cells) and not row.startswith("\\\\"):
                rows.append((at, cells))
        yield rows


def _plain(cell: str) -> str:
    for pattern, by in _WORDS:
        cell = pattern.sub(by, cell)
    return " ".join(cell.split())
