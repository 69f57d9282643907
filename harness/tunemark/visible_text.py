"""Texts of strangers shown as they are: nothing in them is a command to a terminal, or changes the order of letters."""

from __future__ import annotations

import re

# The control characters of C0 and C1 but tabs and line feeds, and Unicode's marks of direction (UAX #9).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def make_visible(text: str) -> str:
    """The text with such characters written as the escapes of JSON and Python, so that JSON stays the same JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
