"""Numbers of every locale, units, and what is left unread."""

from __future__ import annotations

import math

import pytest

from tunemark_importers.numbers import parse_bytes, parse_clock, parse_count, parse_number, parse_seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48896.53", 48896.53),
        ("48,896.53", 48896.53),
        ("48.896,53", 48896.53),
        ("48 896,53", 48896.53),
        ("48\u202f896,53", 48896.53),
        ("48'896.53", 48896.53),
        ("48\u2019896", 48896.0),
        ("1_000_000", 1e6),
        ("1,234,567", 1234567.0),
        ("1.234.567", 1234567.0),
        ("66,07", 66.07),
        ("1,2421875", 1.2421875),
        ("0,123", 0.123),
        ("1.043863E+01", 10.43863),
        ("2e-05", 2e-5),
        ("-3.5", -3.5),
        ("\u22123.5", -3.5),
        (".5", 0.5),
    ],
)
def test_a_number_that_can_be_read_one_way_is_read(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "-", "1,2,3", "12,34,567", "1.2.3", "--1", "0x10", "1e999", "٣", "12 apples", "1 2"]
)
def test_what_is_no_number_is_none(text: str) -> None:
    assert parse_number(text) is None


def test_a_lone_comma_before_three_digits_is_what_the_caller_knows_it_to_be() -> None:
    assert parse_number("1,234") == 1234.0
    assert parse_number("1,234", three="decimals") == 1.234
    assert parse_number("1,234", three=None) is None


def test_nan_and_infinities_stay() -> None:
    assert math.isnan(parse_number("nan") or 0.0)
    assert parse_number("-inf") == -math.inf
    assert parse_number("Infinity") == math.inf


def test_units_are_scaled() -> None:
    assert parse_seconds("820", "ms") == 0.82
    assert parse_seconds("2", "min") == 120.0
    assert parse_seconds("3", "fortnights") is None
    assert parse_count("48.9", "K") == 48900.0
    assert parse_bytes("2", "GB") == 2e9
    assert parse_bytes("2", "GiB") == 2 * 2**30


def test_a_timedelta_is_read_as_python_prints_it() -> None:
    assert parse_clock("0:06:31.22") == 391.22
    assert parse_clock("1 day, 1:00:00") == 90000.0
    assert parse_clock("02:30") == 150.0
    assert parse_clock("6:70:00") is None
