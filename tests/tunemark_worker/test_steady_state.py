"""Statistics of windows: coverage on simulated runs, warm-ups, trends, and what scipy says of t."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunemark_worker import steady_state

_RUNS = 1000


def _correlated(chance: random.Random, windows: int, phi: float) -> list[float]:
    """A stationary first-order autoregression of unit variance."""
    value = chance.gauss(0, 1)
    found = []
    for _ in range(windows):
        found.append(value)
        value = phi * value + math.sqrt(1 - phi * phi) * chance.gauss(0, 1)
    return found


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("windows", [6, *(pytest.param(n, marks=pytest.mark.full) for n in (12, 30)), 100])
def test_intervals_hold_their_stated_coverage(windows: int, phi: float) -> None:
    chance = random.Random(windows * 10 + phi)
    held = 0
    for _ in range(_RUNS):
        seconds = [1 + 0.05 * x for x in _correlated(chance, windows, phi)]
        found = steady_state.within_run_interval(seconds, [100.0] * windows)
        held += found.low <= 100.0 <= found.high
    # 95 % less three standard errors of a share of 1,000 runs: 2.1 points. More is allowed: with few windows nobody
    # can know how correlated they are.
    assert held >= 929


def test_intervals_hold_with_tokens_that_vary_with_the_time() -> None:
    chance = random.Random(4)
    held, widths = 0, []
    for _ in range(_RUNS):
        tokens = [chance.uniform(50, 150) for _ in range(40)]
        seconds = [t / 100 * (1 + 0.02 * x) for t, x in zip(tokens, _correlated(chance, 40, 0.3), strict=True)]
        found = steady_state.within_run_interval(seconds, tokens)
        held += found.low <= 100.0 <= found.high
        widths.append(found.high - found.low)
    assert held >= 929
    # Tokens explain their time: the interval is of what they do not explain, 2 %, and not of their own spread, 29 %.
    assert sum(widths) / _RUNS < 4


def test_intervals_are_not_wider_than_need_be() -> None:
    chance = random.Random(5)
    halves = []
    for _ in range(200):
        seconds = [1 + 0.05 * x for x in _correlated(chance, 400, 0.0)]
        found = steady_state.within_run_interval(seconds, [1.0] * 400)
        halves.append((found.high - found.low) / 2)
    assert sum(halves) / 200 < 2 * 1.96 * 0.05 / math.sqrt(400)


def test_attempts_that_do_not_differ_are_called_different_at_the_stated_rate() -> None:
    """A null comparison by the ratio's interval: of two groups of three attempts each, from one distribution."""
    chance = random.Random(6)
    different = 0
    for _ in range(_RUNS):
        ratios = [math.exp(chance.gauss(0, 0.02) - chance.gauss(0, 0.02)) for _ in range(3)]
        found = steady_state.between_attempts_interval(ratios)
        different += not found.low <= 1.0 <= found.high
    assert different == pytest.approx(0.05 * _RUNS, abs=3 * math.sqrt(0.05 * 0.95 * _RUNS))


def test_too_few_windows_or_attempts_leave_the_value_alone() -> None:
    few = steady_state.within_run_interval([1.0] * 5, [10.0] * 5)
    assert (few.value, few.low, few.high) == (10.0, None, None)
    one = steady_state.between_attempts_interval([10.0])
    assert (one.value, one.low, one.high) == (10.0, None, None)


def test_windows_without_any_spread_have_an_exact_rate() -> None:
    found = steady_state.within_run_interval([0.5] * 10, [10.0] * 10)
    assert found.low == found.value == found.high == 20.0


def test_a_rate_is_a_ratio_of_sums_and_attempts_meet_in_the_geometric_mean() -> None:
    assert steady_state.within_run_interval([1.0] * 5 + [5.0], [10.0] * 6).value == 6.0
    assert steady_state.between_attempts_interval([1.0, 4.0]).value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [([], 0), ([10.0], 1), ([3.0, 2.0, 2.5], 3), ([1.3] * 6, 6), ([5.0, 1.5, 1.5, 1.5], 4)],
    ids=["none", "first step", "three steps", "six slower steps", "two levels"],
)
def test_a_warm_up_is_left_out(warmup: list[float], expected: int) -> None:
    chance = random.Random(7)
    found = []
    for _ in range(200):
        row = [1 + 0.02 * chance.gauss(0, 1) for _ in range(40)]
        row = [w * (1 + 0.02 * chance.gauss(0, 1)) for w in warmup] + row
        found.append(steady_state.find_warmup_end(row))
    # A false alarm drops some windows more, in few runs; a warm-up that is missed must be rarer.
    assert None not in found
    assert sum(end > expected for end in found if end is not None) < 20
    assert sum(end < expected for end in found if end is not None) < 4


def test_a_long_decay_leaves_little_behind() -> None:
    chance = random.Random(8)
    rest = []
    for _ in range(200):
        level = [1 + math.exp(-i / 5) for i in range(60)]
        end = steady_state.find_warmup_end([x * (1 + 0.02 * chance.gauss(0, 1)) for x in level])
        assert end is not None
        rest.append(sum(level[end:]) / (60 - end) - 1)
    assert sum(rest) / len(rest) < 0.025


def test_a_row_that_never_settles_has_no_steady_part() -> None:
    assert steady_state.find_warmup_end([2.0**-i for i in range(30)]) is None
    assert steady_state.find_warmup_end([1.0] * (steady_state.STEADY_WINDOWS - 1)) is None


@given(st.lists(st.floats(0.01, 100), max_size=40), st.lists(st.floats(0.01, 100), max_size=10))
def test_later_windows_never_move_the_end_of_the_warm_up(row: list[float], later: list[float]) -> None:
    end = steady_state.find_warmup_end(row)
    if end is not None:
        assert steady_state.find_warmup_end(row + later) == end


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=40), st.floats(0.001, 1000))
def test_another_unit_of_time_changes_no_decision(row: list[float], unit: float) -> None:
    scaled = [unit * x for x in row]
    ours, theirs = (
        steady_state.within_run_interval(row, [1.0] * len(row)),
        steady_state.within_run_interval(scaled, [1.0] * len(row)),
    )
    assert theirs.value * unit == pytest.approx(ours.value)
    assert theirs.high * unit == pytest.approx(ours.high, rel=1e-4)


def test_a_drift_is_certain_and_a_flat_row_is_none() -> None:
    chance = random.Random(9)
    alarms = 0
    for _ in range(_RUNS):
        _, p = steady_state.theil_sen_trend([1 + 0.05 * x for x in _correlated(chance, 40, 0.3)])
        alarms += p < 0.001
    assert alarms <= 10
    change, p = steady_state.theil_sen_trend([1 + 0.1 * i / 39 + 0.01 * chance.gauss(0, 1) for i in range(40)])
    assert change == pytest.approx(0.1, abs=0.03)
    assert p < 0.001


def test_a_rising_row_is_standard_errors_above_flat() -> None:
    row = [0.1 * i + (-1) ** i for i in range(20)]
    fit = stats.linregress(range(20), row)
    assert steady_state.slope_over_error(row) == pytest.approx(fit.slope / fit.stderr)
    assert steady_state.slope_over_error([1.0] * 7 + [100.0]) > 0
    assert steady_state.slope_over_error([1.0] * 20) == 0
    assert steady_state.slope_over_error([1.0, 2.0]) == 0


@given(st.floats(0.001, 0.999), st.integers(1, 200))
def test_quantiles_are_those_of_scipy(p: float, freedom: int) -> None:
    assert steady_state.t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-6, abs=1e-9)
