"""The JSON Schema of a line of runs.jsonl, generated from the type that is written."""

from __future__ import annotations

from typing import Any

import msgspec

from tunemark.results.result import Result


def result_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a result."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Result)}
