"""Any program's lines: a rate by its unit, and nothing that could be something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.generic_log import GenericLogReader

_FIXTURE = Path(__file__).parents[2] / "fixtures/importers/anything.txt"


def _claim(text: str) -> Claim | None:
    read = GenericLogReader()
    for number, line in enumerate(text.splitlines(), 1):
        read.read(LogLine(number, line))
    return next(iter(read.claims()), None)


def test_rates_are_found_by_their_unit_with_what_stands_beside_them() -> None:
    claim = _claim(_FIXTURE.read_text())
    assert claim is not None
    steps = list(claim.steps)
    assert [s.number for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s.tokens_per_s for s in steps] == [8903.4, 40746.1, 39900.0, 40112.5, 5013.2, 40011.0]
    assert [s.duration_s for s in steps[:3]] == [1.8402, 0.4021, 0.41]
    assert [s.loss for s in steps[:5]] == [3.21, 3.12, 3.05, 2.99, 2.91]
    assert steps[3].tokens == 65536
    assert (claim.padding_fraction, claim.steps_total) == (0.375, 40.0)
    assert (claim.layout.global_batch, claim.sequence) == (16, 1024)
    assert claim.counts is None


def test_a_rate_per_device_is_said_to_be_one() -> None:
    claim = _claim("step 1 tokens/s/gpu: 812.5")
    assert claim is not None
    assert claim.scope == "device"


@pytest.mark.parametrize(
    "line",
    [
        "generated 512 tokens in 3 s",
        "vocab tokens: 32000",
        "https://example.org/tokens/sec/12",
        "step 5 loss 2.3",
        "loaded 1.2M tokens",
        "max tokens per second unknown",
        "tokens/s: fast",
    ],
)
def test_what_is_no_rate_is_not_read(line: str) -> None:
    assert _claim(line) is None
