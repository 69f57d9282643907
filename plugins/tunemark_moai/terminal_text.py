"""Recorded terminal output as the numbered lines that a terminal would show, and the error that names one of them.

Escape sequences, corrections by backspace and carriage returns are removed. A line keeps its number in the file, so
that an error message can be looked up there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunemark.errors import TunemarkError

# ECMA-48: strings (OSC, DCS, PM, APC, SOS), control sequences, and the two-letter escapes.
_STRINGS = re.compile(r"(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)")
_FORWARD = re.compile(r"(?:\x1b\[|\x9b)([0-9]{0,3})C")
_MOVE = re.compile(r"(?:\x1b\[|\x9b)[0-9;]*[ABEFHdf]")
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|\x1b")
_NEWLINE = re.compile(r"\r*\n")
# A lone carriage return starts the line again; no tool of the platform overwrites a line with a shorter one.
_RESTART = re.compile("[\r\v\f\x85\u2028\u2029]")
_BLANK = re.compile("[\u00a0\u2000-\u200a\u202f\u3000]")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200d\u2060\ufeff]")

# A token authorises whoever holds it. It is padded base64; nothing else that these tools print has that padding.
_SECRET = re.compile(r"[A-Za-z0-9+/]{12,}={1,2}")

_MAX_SHOWN = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminalLine:
    """One line: its number in the text, from 1, and its visible text without trailing blanks."""

    number: int
    text: str


class UnreadableOutput(TunemarkError):  # noqa: N818 - it is what happened, as in tunemark.errors
    """Text that no tool of the platform is known to print. Shows the line and what was expected."""

    def __init__(self, *, what: str, expected: str, line: TerminalLine | None = None, next: str = "") -> None:
        where = f"line {line.number}: {_quote(line.text)}; " if line else ""
        super().__init__(
            what=what,
            why=f"{where}expected {expected}",
            next=next or "save the tool's whole output unchanged; if it already is, this layout is not known yet",
        )
        self.line = line


def split_lines(text: str) -> list[TerminalLine]:
    """The lines that a terminal would show; lines that a carriage return separates share a number."""
    found = []
    for number, raw in enumerate(_NEWLINE.split(text), start=1):
        for piece in _RESTART.split(_render(raw)):
            found.append(TerminalLine(number=number, text=_INVISIBLE.sub("", piece).rstrip()))
    return found


def strip_markup(text: str) -> str:
    """A text without Markdown: bold, strike-through, escapes."""
    return re.sub(r"\\([\\_*~<>|\[\]#`])", r"\1", text.replace("**", "").replace("~~", ""))


def _render(raw: str) -> str:
    text = _STRINGS.sub("", raw)
    text = _FORWARD.sub(lambda m: " " * min(int(m.group(1) or 1), 500), text)
    text = _BLANK.sub(" ", _SEQUENCE.sub("", _MOVE.sub("\r", text)))
    if "\b" not in text:
        return text
    kept: list[str] = []
    for letter in text:
        if letter != "\b":
            kept.append(letter)
        elif kept:
            kept.pop()
    return "".join(kept)


def _quote(text: str) -> str:
    """A line in quotes, with tokens masked and cut to `_MAX_SHOWN` characters."""
    text = _SECRET.sub("(a token)", text.strip())
    return f'"{text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + " ..."}"'
