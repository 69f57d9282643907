"""A program's log is read by its description alone, as a plugin would add it."""

from __future__ import annotations

import pytest

from tunemark.plugin import FigureDescription, FormatDescription
from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.described_log import DescribedLogReader, read_value

_LINES = FormatDescription(
    name="toy",
    title="lines of a toy",
    meaning="slots of one device over a step",
    sources=("toy: train.py",),
    begins=r"toy (?P<step>[0-9]+)/(?P<steps_total>[0-9]+): ",
    marks=("toy ",),
    requires=("speed",),
    figures=(
        FigureDescription("speed", "tokens_per_s", "K", "device", "slots", "step"),
        FigureDescription("mean speed", "tokens_per_s", "K", "device", "slots", "start"),
        FigureDescription("took", "step_time", "ms", over="step"),
        FigureDescription("drawn", "tokens_per_s", "", "device", None, "step", is_training=False),
    ),
)
_BLOCKS = FormatDescription(
    name="toy-blocks",
    title="blocks of a toy",
    meaning="sequences of the whole job",
    sources=("toy: train.py",),
    begins=r"== step (?P<step>[0-9]+) ==$",
    marks=("== step",),
    is_block=True,
    requires=("rate",),
    figures=(FigureDescription("rate", "samples_per_s", "", "job"), FigureDescription("time", "step_time", "s")),
)


def _read(format: FormatDescription, *lines: str) -> Claim:
    reader = DescribedLogReader(format)
    for number, line in enumerate(lines, 1):
        reader.read(LogLine(number, line))
    (claim,) = reader.claims()
    return claim


def test_a_plugins_format_is_read_by_its_description() -> None:
    claim = _read(
        _LINES, *(f"toy {n}/9: speed: 4.{n}K, took: 25{n} ms, mean speed: 4.0K, drawn: 77" for n in (1, 2, 3))
    )
    assert (claim.tool, claim.scope, claim.counts, claim.rate_name, claim.steps_total) == (
        "toy",
        "device",
        "slots",
        "speed",
        9.0,
    )
    assert [(s.number, s.tokens_per_s, s.duration_s) for s in claim.steps] == [
        (1.0, 4100.0, 0.251),
        (2.0, 4200.0, 0.252),
        (3.0, 4300.0, 0.253),
    ]
    assert [(f.name, f.value, f.is_training) for f in claim.figures] == [
        ("mean speed", 4000.0, True),
        ("drawn", 77.0, False),
    ]


def test_rates_of_two_names_are_never_mixed() -> None:
    claim = _read(_LINES, "toy 1/9: speed: 4.0K", "toy 2/9: speed: 4.1K, mean speed: 4.0K")
    assert [s.tokens_per_s for s in claim.steps] == [4000.0, 4100.0]
    # A line without the required name is of another kind.
    reader = DescribedLogReader(_LINES)
    assert not reader.read(LogLine(1, "toy 3/9: mean speed: 4.0K"))


def test_a_block_without_its_figure_is_none_and_one_ends_where_the_next_begins() -> None:
    lines = ["== step 1 ==", "rate: 8.5", "time: 2.0", "== step 2 ==", "time: 2.0", "== step 3 ==", "- rate: 9.5"]
    claim = _read(_BLOCKS, *lines)
    assert [(s.number, s.samples_per_s, s.duration_s) for s in claim.steps] == [(1.0, 8.5, 2.0), (3.0, 9.5, None)]
    assert claim.samples_scope == "job"


@pytest.mark.parametrize(
    ("text", "unit", "scale", "value"),
    [
        ("12", "ms", None, 0.012),
        ("38.5", "%", None, 0.385),
        ("1.5", "K", "M", 1.5e6),
        ("121.5", "FLOPS", "T", 121.5),
        ("1.2", "FLOPS", "P", 1200.0),
        ("2e15", "FLOP/s", None, 2000.0),
        ("0:01:10", "clock", None, 70.0),
        ("1h 2m 3s", "words", None, 3723.0),
        ("34.5", "time", "us", 34.5e-6),
        ("1.05", "Kms", "K", 1.05),
        ("", "words", None, None),
        ("soon", "s", None, None),
    ],
)
def test_values_have_units(text: str, unit: str, scale: str | None, value: float | None) -> None:
    assert read_value(text, unit, scale) == (value if value is None else pytest.approx(value))
