"""Laws of scaling: the parameters that made the data are found, and intervals hold the truth as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from msgspec.structs import astuple

from tunemark.analysis import speedup_laws
from tunemark.analysis.scaling_types import Band
from tunemark.analysis.speedup_laws import LawFits, SizeObservations
from tunemark.experiment.scaling_batches import ScalingMode

Truth = Callable[[float], float]


def usl(s: float, k: float, x1: float = 1000.0) -> Truth:
    return lambda n: x1 * n / (1 + s * (n - 1) + k * n * (n - 1))


def gustafson(s: float, x1: float = 1000.0) -> Truth:
    return lambda n: x1 * (s + (1 - s) * n)


def exact(truth: Truth, sizes: Sequence[float] = (1, 2, 4, 8, 16), attempts: int = 3) -> list[SizeObservations]:
    return [SizeObservations(n, (math.log(truth(n)),) * attempts) for n in sizes]


def noisy(
    truth: Truth, noise: float | Sequence[float], generator: np.random.Generator, sizes: Sequence[float]
) -> list[SizeObservations]:
    """Three attempts of each size, whose logarithms scatter by `noise`, for all sizes or for each."""
    each = [noise] * len(sizes) if isinstance(noise, float) else noise
    return [
        SizeObservations(n, tuple(math.log(truth(n)) + deviation * generator.standard_normal(3)))
        for n, deviation in zip(sizes, each, strict=True)
    ]


def rate(found: LawFits, units: float) -> Band:
    return found.rates([units])[0]


def speedup(found: LawFits, units: float) -> Band:
    return found.speedups([units])[0]


@pytest.mark.parametrize(
    ("truth", "mode", "law", "parameters"),
    [
        (usl(0.05, 0.0), "strong", "amdahl", {"x1": 1000, "s": 0.05}),
        (usl(0.05, 0.002), "strong", "usl", {"x1": 1000, "s": 0.05, "k": 0.002}),
        (usl(0.0, 0.01), "weak", "usl", {"x1": 1000, "s": 0.0, "k": 0.01}),
        (gustafson(0.2), "weak", "gustafson", {"x1": 1000, "s": 0.2}),
    ],
)
def test_a_law_is_found_again(truth: Truth, mode: ScalingMode, law: str, parameters: dict[str, float]) -> None:
    found = speedup_laws.fit_laws(exact(truth), mode)
    assert found.fits[0].law == law
    assert {name: p.value for name, p in found.fits[0].parameters.items()} == pytest.approx(parameters, abs=1e-9)
    assert rate(found, 64).value == pytest.approx(truth(64), rel=1e-6)
    assert speedup(found, 64).value == pytest.approx(truth(64) / truth(1), rel=1e-6)


def test_the_speedup_is_against_the_smallest_size_whatever_it_is() -> None:
    truth = usl(0.03, 0.001)
    found = speedup_laws.fit_laws(exact(truth, (4, 8, 16, 32, 64)), "strong")
    assert astuple(speedup(found, 4)) == pytest.approx((1.0, 1.0, 1.0, 1.0, 1.0))
    assert speedup(found, 64).value == pytest.approx(truth(64) / truth(4), rel=1e-6)
    # s and k are of one unit all the same.
    assert found.fits[0].parameters["s"].value == pytest.approx(0.03, rel=1e-4)


def test_the_order_of_sizes_is_nothing() -> None:
    data = noisy(usl(0.05, 0.002), 0.02, np.random.default_rng(1), (1, 2, 4, 8, 16))
    assert rate(speedup_laws.fit_laws(data, "strong"), 32) == rate(speedup_laws.fit_laws(data[::-1], "strong"), 32)


# From a smallest size above 1 the derivatives of its own speed-up are rounding errors, which must not widen the band.
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8, 16), (4, 8, 16, 32, 64)])
def test_all_rates_times_a_thousand_change_the_rate_of_one_unit_alone(sizes: Sequence[float]) -> None:
    data = noisy(usl(0.05, 0.002), 0.02, np.random.default_rng(1), sizes)
    scaled = [SizeObservations(units, tuple(x + math.log(1000) for x in logs)) for units, logs in data]
    before, after = (speedup_laws.fit_laws(each, "strong") for each in (data, scaled))
    assert astuple(rate(after, 32)) == pytest.approx([1000 * x for x in astuple(rate(before, 32))], rel=1e-6)
    assert astuple(speedup(after, 32)) == pytest.approx(astuple(speedup(before, 32)), rel=1e-6)
    old, new = before.fits[0].parameters, after.fits[0].parameters
    assert new["x1"].value == pytest.approx(1000 * old["x1"].value)
    assert new["s"].value == pytest.approx(old["s"].value, rel=1e-5)


def test_the_peak_is_where_the_curve_turns() -> None:
    # sqrt((1 - 0.04) / 0.0006) = sqrt(1600) = 40.
    found = speedup_laws.fit_laws(exact(usl(0.04, 0.0006), (1, 2, 4, 8, 16, 32)), "strong")
    assert found.peak_units is not None
    assert found.peak_units.value == pytest.approx(40, rel=1e-3)
    assert rate(found, 40).value > max(rate(found, 38).value, rate(found, 42).value)


def test_a_peak_that_noise_leaves_open_has_no_upper_bound() -> None:
    for seed in range(20):
        data = noisy(usl(0.05, 0.0005), 0.02, np.random.default_rng(seed), (1, 2, 4, 8, 16))
        found = speedup_laws.fit_laws(data, "strong")
        if found.fits[0].law == "usl" and found.fits[0].parameters["k"].low == 0:
            assert found.peak_units is not None
            assert found.peak_units.high is None
            return
    pytest.fail("no draw has a coherency cost that may be none")


def test_four_sizes_and_six_attempts_are_needed() -> None:
    few = speedup_laws.why_no_fit(exact(usl(0.1, 0), (1, 2, 4)))
    assert few == "a fit needs at least 4 sizes that were measured well, there are 3"
    single = speedup_laws.why_no_fit(exact(usl(0.1, 0), (1, 2, 4, 8), attempts=1))
    assert single == "a choice between laws needs at least 6 attempts in all, there are 4"
    assert speedup_laws.why_no_fit(exact(usl(0.1, 0), (1, 2, 4, 8), attempts=2)) is None


def test_sizes_off_every_curve_are_a_misfit_and_widen_the_band() -> None:
    truth = usl(0.05, 0.002)

    def with_a_step(n: float) -> float:
        # Beyond four units a slower link: half the rate.
        return truth(n) / (2 if n > 4 else 1)

    sizes = (1, 2, 4, 8, 16, 32)
    generator = np.random.default_rng(3)
    straight = speedup_laws.fit_laws(noisy(truth, 0.01, generator, sizes), "strong")
    broken = speedup_laws.fit_laws(noisy(with_a_step, 0.01, generator, sizes), "strong")
    assert not straight.is_misfit
    assert broken.is_misfit
    assert _width(rate(broken, 8)) > 10 * _width(rate(straight, 8))


def test_a_band_is_never_without_its_curve_and_grows_beyond_the_sizes() -> None:
    data = noisy(usl(0.05, 0.0), 0.03, np.random.default_rng(5), (1, 2, 4, 8))
    found = speedup_laws.fit_laws(data, "strong", reach=64)
    bounds = [rate(found, n) for n in (8, 16, 32, 64)]
    for value, low, high, band_low, band_high in map(astuple, bounds):
        assert low is not None
        assert high is not None
        assert band_low is not None
        assert band_high is not None
        assert band_low <= low <= value <= high <= band_high
    widths = [_width(b) for b in bounds]
    assert widths == sorted(widths)


def _width(bounds: Band) -> float:
    assert bounds.low is not None
    assert bounds.high is not None
    return math.log(bounds.high / bounds.low)


class Coverage:
    """How often intervals held the truth, in per cent of the draws."""

    def __init__(
        self, draws: int, truth: Truth, sizes: Sequence[float], noise: float | Sequence[float], mode: ScalingMode
    ):
        generator = np.random.default_rng(2026)
        at = (*sizes, 2 * sizes[-1])
        whole = np.geomspace(sizes[0], 2 * sizes[-1], 25).tolist()
        rates, speedups, band, band_of_speedup = dict.fromkeys(at, 0), dict.fromkeys(at[1:], 0), 0, 0
        for _ in range(draws):
            found = speedup_laws.fit_laws(noisy(truth, noise, generator, sizes), mode)
            for n, bounds in zip(at, found.rates(at), strict=True):
                rates[n] += _holds(bounds, truth(n))[0]
            for n, bounds in zip(at[1:], found.speedups(at[1:]), strict=True):
                speedups[n] += _holds(bounds, truth(n) / truth(sizes[0]))[0]
            every = zip(whole, found.rates(whole), found.speedups(whole), strict=True)
            held = [(_holds(r, truth(n))[1], _holds(s, truth(n) / truth(sizes[0]))[1]) for n, r, s in every]
            band += all(one for one, _ in held)
            band_of_speedup += all(other for _, other in held)
        self.rate = {n: 100 * hits / draws for n, hits in rates.items()}
        self.speedup = {n: 100 * hits / draws for n, hits in speedups.items()}
        self.band, self.band_of_speedup = 100 * band / draws, 100 * band_of_speedup / draws

    def __str__(self) -> str:
        words = [f"{name} {' '.join(f'{x:.1f}' for x in each.values())}" for name, each in
                 (("rate at each N", self.rate), ("speed-up at each N", self.speedup))]  # fmt: skip
        return f"{'; '.join(words)}; whole curve {self.band:.1f}, of the speed-up {self.band_of_speedup:.1f}"


def _holds(bounds: Band, truth: float) -> tuple[bool, bool]:
    """Whether the interval at this N holds it, and whether the band of the whole curve does."""

    def within(low: float | None, high: float | None) -> bool:
        return (low is None or low <= truth * (1 + 1e-12)) and (high is None or truth * (1 - 1e-12) <= high)

    return within(bounds.low, bounds.high), within(bounds.band_low, bounds.band_high)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    found = Coverage(200, usl(0.05, 0.002), (1, 2, 4, 8), 0.01, "strong")
    # Of 200 draws at 95 %, 181 to 198 are held in 99.9 of 100 experiments.
    for share in (*found.rate.values(), *found.speedup.values(), found.band, found.band_of_speedup):
        assert 90.5 <= share <= 99.0, str(found)


@pytest.mark.full
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (1, 2, 4, 8, 16, 32)], ids=["4-sizes", "6-sizes"])
@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize(("s", "k"), [(0.05, 0.002), (0.05, 0.0), (0.0, 0.001)])
def test_of_a_thousand_draws_from_a_known_law_93_to_97_per_cent_are_held(
    s: float, k: float, noise: float, sizes: tuple[float, ...]
) -> None:
    found = Coverage(1000, usl(s, k), sizes, noise, "strong")
    print(f"\nUSL s {s} k {k}, noise {100 * noise:g} %, {len(sizes)} sizes x 3 attempts, per cent held: {found}")
    for share in (*found.rate.values(), found.band):
        assert 93.0 <= share <= 97.0, str(found)
    # A speed-up's bound is the truth itself where s and k are 0, so that near it more is held.
    for share in (*found.speedup.values(), found.band_of_speedup):
        assert 93.0 <= share <= 98.5, str(found)
