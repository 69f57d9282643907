"""Parses a flat dictionary as Python prints it, which trainers write to the console. It is never evaluated."""

from __future__ import annotations

import re

_VALUE = r"(?:'[^'{}\n]*'|\"[^\"{}\n]*\"|[^\s'\"{},:]+)"
_PAIR = re.compile(rf"\s*(?:'([^'{{}}\n]+)'|\"([^\"{{}}\n]+)\")\s*:\s*({_VALUE})\s*(,|$)")
_DICT = re.compile(r"\{(['\"][^{}]*)\}")


def parse_flat_dict(text: str) -> dict[str, str] | None:
    """The first flat dictionary in `text`, values as printed without their quotes; None if there is none, or it is cut
    off or holds anything but plain values."""
    match = _DICT.search(text)
    if not match:
        return None
    found: dict[str, str] = {}
    inside, at = match.group(1), 0
    while at < len(inside):
        pair = _PAIR.match(inside, at)
        if not pair:
            return None
        found[pair.group(1) or pair.group(2)] = pair.group(3).strip("'\"")
        at = pair.end()
    return found
