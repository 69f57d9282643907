"""Returns an object that is not a Model."""

from __future__ import annotations

from typing import Any

from tunemark.plugin import hookimpl


@hookimpl
def tunemark_models() -> Any:
    return [{"name": "a dictionary"}]
