"""Returns nothing at all."""

from __future__ import annotations

from tunemark.plugin import hookimpl


@hookimpl
def tunemark_datasets() -> None:
    return None
