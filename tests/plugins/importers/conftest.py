"""Logs and documents in the formats of other tools, written for these tests: every figure in them is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import Claim, LogLine, LogReader
from tunemark.plugin.descriptors import Importer
from tunemark_importers.plugin import tunemark_importers

_FIXTURES = Path(__file__).parents[2] / "fixtures/importers"


@pytest.fixture(scope="session")
def printed() -> Callable[[str], str]:
    """The text of a fixture."""
    return lambda name: (_FIXTURES / name).read_text(encoding="utf-8-sig")


@pytest.fixture(scope="session")
def importers() -> dict[str, Importer]:
    return {importer.name: importer for importer in tunemark_importers()}


@pytest.fixture(scope="session")
def claims_of(importers: dict[str, Importer]) -> Callable[[str, str], Sequence[Claim]]:
    """The claims that an importer finds in a text."""

    def read(name: str, text: str) -> Sequence[Claim]:
        importer = importers[name]
        if importer.document:
            found: Sequence[Claim] = load_object(importer.document)("here", "a file", text)
            return found
        reader: LogReader = load_object(importer.log or "")()
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                reader.read(LogLine(number, line))
        return reader.claims()

    return read


@pytest.fixture(scope="session")
def understood() -> Callable[[LogReader, str], list[bool]]:
    """Whether a reader understood each line of a text."""
    return lambda reader, text: [reader.read(LogLine(at, line)) for at, line in enumerate(text.splitlines(), 1)]
