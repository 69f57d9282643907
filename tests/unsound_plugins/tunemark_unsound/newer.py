"""Requires a plugin interface version that does not exist yet."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Dataset, hookimpl

TUNEMARK_INTERFACE = "99.0"


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return []
