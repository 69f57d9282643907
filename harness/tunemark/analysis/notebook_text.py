"""The text that the cells of a Jupyter notebook printed, so that it can be read like any log.

Source: nbformat's documentation, format 4 (outputs of type stream, execute_result, display_data and error).
"""

from __future__ import annotations

import json
import re
from typing import Any

from tunemark.errors import BadData

_BEGINS = re.compile(rb"\s*\{\s*\"(?:cells\"\s*:\s*\[|metadata\"\s*:\s*\{|nbformat)")


def may_be_notebook(opening: bytes) -> bool:
    """Whether a file may be a notebook, by how it begins."""
    return _BEGINS.match(opening) is not None and (b'"cell_type"' in opening or b'"nbformat"' in opening)


def notebook_text(content: bytes, source: str) -> bytes:
    """What all cells printed, in their order. Raises `BadData` if it is no notebook, or nothing was printed."""
    try:
        cells = json.loads(content)["cells"]
        printed = [text for cell in cells for output in cell.get("outputs", ()) for text in _texts(output)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadData(
            what=f"{source} begins like a notebook and cannot be read as one",
            why=str(error)[:200],
            next="save it again, or give its output as text",
        ) from error
    if not any(text.strip() for text in printed):
        raise BadData(
            what=f"the cells of {source} have printed nothing",
            next="run it, and save it with its output; or give the program's log",
        )
    return "\n".join(printed).encode()


def _texts(output: dict[str, Any]) -> list[str]:
    if "text" in output:
        return [_joined(output["text"])]
    if output.get("output_type") == "error":
        return [f"{output.get('ename', '')}: {output.get('evalue', '')}"]
    data = output.get("data", {})
    # A table as HTML has its cells apart; the same output as plain text is another form of it.
    name = next((name for name in ("text/html", "text/markdown", "text/plain") if name in data), None)
    return [] if name is None else [_joined(data[name])]


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)
