"""Redaction of results for publication: what identifies the machine but does not affect speed becomes a digest."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tunemark.results import Result

# Private facts of the environment. Different values keep different digests.
_PRIVATE = (("host", "name"), ("interpreter", "path"))
_MARK = "sha256:"


def redact(result: Result) -> Result:
    """The result with digests of the host's name and the interpreter's path; the store keeps the originals."""
    environment: dict[str, Any] = dict(result.environment)
    for part, name in _PRIVATE:
        facts = environment.get(part)
        if isinstance(facts, dict) and name in facts and not str(facts[name]).startswith(_MARK):
            digest = hashlib.sha256(str(facts[name]).encode()).hexdigest()[:12]
            environment[part] = {**facts, name: _MARK + digest}
    return result if environment == result.environment else msgspec.structs.replace(result, environment=environment)
