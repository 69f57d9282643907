"""Ratios and their claims against tables, scipy, and what must not change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunemark.results import Result
from tunemark.results.ratio import RatioTerm, adjust_p_values, attempt_rates, estimate_ratio, is_in_rounds

Made = Callable[..., Result]

_RATES = st.lists(st.floats(10, 1e6), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(a=_RATES, b=_RATES)
def test_welch_is_that_of_scipy_on_logarithms(a: list[float], b: list[float]) -> None:
    found = estimate_ratio([RatioTerm(1.0, b), RatioTerm(-1.0, a)], in_rounds=False)
    logs = [[math.log(x) for x in rates] for rates in (b, a)]
    if all(max(values) - min(values) > 1e-6 for values in logs):
        theirs = stats.ttest_ind(*logs, equal_var=False)
        low, high = theirs.confidence_interval()
        assert found.p == pytest.approx(theirs.pvalue, abs=1e-7)
        assert math.log(found.low or 0) == pytest.approx(low, abs=1e-6, rel=1e-6)
        assert math.log(found.high or 0) == pytest.approx(high, abs=1e-6, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(st.tuples(st.floats(10, 1e6), st.floats(10, 1e6)), min_size=2, max_size=6))
def test_pairs_are_those_of_scipy_on_logarithms(rounds: list[tuple[float, float]]) -> None:
    a, b = zip(*rounds, strict=True)
    found = estimate_ratio([RatioTerm(1.0, b), RatioTerm(-1.0, a)], in_rounds=True)
    apart = [math.log(y / x) for x, y in rounds]
    if max(apart) - min(apart) > 1e-6:
        assert found.p == pytest.approx(stats.ttest_1samp(apart, 0).pvalue, abs=1e-7)
    assert found.value == pytest.approx(stats.gmean(b) / stats.gmean(a))


@settings(max_examples=40, deadline=None)
@given(a=_RATES, b=_RATES, k=st.floats(1e-3, 1e3), paired=st.booleans())
def test_the_other_way_round_is_the_inverse_and_scale_is_nothing(
    a: list[float], b: list[float], k: float, paired: bool
) -> None:
    if paired:
        a, b = a[: min(len(a), len(b))], b[: min(len(a), len(b))]

    def ratio(one: list[float], other: list[float]) -> Any:
        return estimate_ratio([RatioTerm(1.0, one), RatioTerm(-1.0, other)], in_rounds=paired)

    forth, back = ratio(b, a), ratio(a, b)
    assert back.value == pytest.approx(1 / forth.value)
    assert back.p == pytest.approx(forth.p, abs=1e-9)
    # Intervals of a few wild attempts leave the range of floats.
    if forth.high < 1e100:
        assert (back.low, back.high) == pytest.approx((1 / forth.high, 1 / forth.low), rel=1e-6)
        scaled = ratio([k * x for x in b], [k * x for x in a])
        assert (scaled.low, scaled.value, scaled.high) == pytest.approx((forth.low, forth.value, forth.high), rel=1e-6)
    assert back.contains_one == forth.contains_one


def test_one_attempt_bears_no_interval_and_says_so() -> None:
    found = estimate_ratio([RatioTerm(1.0, [110.0]), RatioTerm(-1.0, [100.0, 101.0])], in_rounds=False)
    assert found.value == pytest.approx(110 / math.sqrt(100 * 101))
    assert (found.low, found.high, found.p, found.contains_one) == (None, None, None, None)
    assert found.method == "none: one attempt on a side"


def test_holm_is_worked_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 are multiplied by 4, 3, 2, 1 and never fall: 0.04, 0.06, 0.06, 0.06.
    assert adjust_p_values([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert adjust_p_values([]) == []
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]


def test_rounds_are_told_from_the_order_of_attempts(made_run: Made) -> None:
    a, b = made_run(minute=0), made_run(minute=1)  # a at 0, 2, 4; b at 1, 3, 5
    assert is_in_rounds([a, b])
    assert is_in_rounds([b, a])
    one_after_the_other = made_run(minute=7)
    assert not is_in_rounds([a, one_after_the_other])
    assert not is_in_rounds([a, made_run((1.0, 2.0), minute=1)]), "a round lacks an attempt"
    elsewhere = made_run(minute=1, environment={"host": {"name": "other", "processor": "P"}})
    assert not is_in_rounds([a, elsewhere])


def test_a_drift_of_the_machine_cancels_in_pairs(made_run: Made) -> None:
    # Every round is 20 % slower than the one before, b always 2 % faster, give or take a thousandth.
    a = made_run((100.0, 80.0, 64.0))
    b = made_run((102.0, 81.68, 65.21), minute=1)
    paired = estimate_ratio(
        [RatioTerm(1.0, attempt_rates(b)), RatioTerm(-1.0, attempt_rates(a))], in_rounds=is_in_rounds([a, b])
    )
    alone = estimate_ratio([RatioTerm(1.0, attempt_rates(b)), RatioTerm(-1.0, attempt_rates(a))], in_rounds=False)
    assert paired.contains_one is False
    assert alone.contains_one is True
