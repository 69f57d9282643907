"""Fields that one object, row or document takes over from another under the same names."""

from __future__ import annotations

from typing import Any


def read_fields(found: object, *names: str) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}
