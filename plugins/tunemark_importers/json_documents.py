"""Parses JSON documents of other tools, with errors that say where they are broken."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.claims import ClaimedLayout

# No figure has more digits; Python refuses to parse integers with thousands of them.
_MAX_DIGITS = 300
_LAYOUT_FIELDS = frozenset(field.name for field in dataclasses.fields(ClaimedLayout))


def parse_json_object(text: str, source: str, kind: str) -> dict[str, Any]:
    """The JSON object in `text`; a number too large for a float stays text. kind: what the file should be.

    Raises `BadData` if it is broken, cut off, too deeply nested, or not an object.
    """
    try:
        found = json.loads(text, parse_float=_parse_float, parse_int=_parse_int)
    except json.JSONDecodeError as error:
        lines = text.count("\n") + 1
        where = f"line {error.lineno} of {lines:,}, column {error.colno}: {error.msg}"
        is_cut = error.pos >= len(text.rstrip())
        raise BadData(
            what=f"{source} is {'cut off' if is_cut else 'not JSON'}, though it begins like {kind}",
            why=where,
            next="copy the file again from where it was written",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadData(
            what=f"{source} is not {kind}", why=str(error)[:200], next="copy the file again from where it was written"
        ) from error
    if not isinstance(found, dict):
        raise BadData(
            what=f"{source} is not {kind}", why=f"its JSON is a {type(found).__name__}, not an object", next="see above"
        )
    return found


def _parse_float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _parse_int(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text


def object_in(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under that name, or an empty one."""
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def as_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_count(value: Any) -> int | None:
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() and 0 < number < 1e15 else None


def pop_layout(facts: dict[str, Any]) -> ClaimedLayout:
    """Move the facts that describe a layout out of `facts`."""
    return ClaimedLayout(**{name: facts.pop(name) for name in _LAYOUT_FIELDS & facts.keys()})
