"""A result as it may be handed on: what names its machine, and says nothing of its speed, is told by a digest alone."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tunemark.results import Result

# Of the environment: the host's own name, and where on it the interpreter lies. Two that differ still do.
_PRIVATE = (("host", "name"), ("interpreter", "path"))
_MARK = "sha256:"


def published(result: Result) -> Result:
    """The result with digests for the host's name and the interpreter's place; the store keeps both as they are."""
    kept: dict[str, Any] = dict(result.environment)
    for part, name in _PRIVATE:
        facts = kept.get(part)
        if isinstance(facts, dict) and name in facts and not str(facts[name]).startswith(_MARK):
            digest = hashlib.sha256(str(facts[name]).encode()).hexdigest()[:12]
            kept[part] = {**facts, name: _MARK + digest}
    return result if kept == result.environment else msgspec.structs.replace(result, environment=kept)
