"""JSON documents of other tools: whole objects, or a sentence on where they break."""

from __future__ import annotations

import json
import math
from typing import Any

from tunemark.errors import BadData

# More digits than any figure has; Python refuses to read integers of thousands of them.
_MOST_DIGITS = 300


def json_of(text: str, source: str, kind: str) -> dict[str, Any]:
    """The JSON object that `text` is. A number too large for a float stays text, since it cannot be read as one.

    Raises `BadData` where it is broken, cut off, too deep, or not an object; kind: what the file should have been.
    """
    try:
        found = json.loads(text, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        lines = text.count("\n") + 1
        where = f"line {error.lineno} of {lines:,}, column {error.colno}: {error.msg}"
        is_cut = error.pos >= len(text.rstrip())
        raise BadData(
            what=f"{source} is {'cut off' if is_cut else 'no JSON'}, though it begins as {kind}",
            why=where,
            next="copy the file again from where it was written",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadData(
            what=f"{source} is no {kind}", why=str(error)[:200], next="copy the file again from where it was written"
        ) from error
    if not isinstance(found, dict):
        raise BadData(
            what=f"{source} is no {kind}", why=f"its JSON is a {type(found).__name__}, not an object", next="see above"
        )
    return found


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _MOST_DIGITS else text
