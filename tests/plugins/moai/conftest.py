"""Outputs of the tools, written for these tests in the formats that Moreh's documents show (versions 0.8 to 25.4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

_FIXTURES = Path(__file__).parents[2] / "fixtures/moai"


@pytest.fixture(scope="session")
def printed() -> Callable[[str], str]:
    """The text of one fixture by its name without the suffix."""
    return lambda name: (_FIXTURES / f"{name}.txt").read_text()


@pytest.fixture(scope="session")
def fixture_names() -> list[str]:
    return sorted(path.stem for path in _FIXTURES.glob("*.txt"))
