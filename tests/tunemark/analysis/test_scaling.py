"""Results into scalings: what is grouped, what takes part, and what a speed-up, an efficiency and a choice rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunemark.analysis.prices import Prices, read_prices
from tunemark.analysis.scaling import compute_all_scalings, compute_scalings
from tunemark.analysis.scaling_types import BestSize, Scaling
from tunemark.errors import BadExperiment
from tunemark.predict.search import SearchLog
from tunemark.report.scaling_section import scaling_title as growth_title
from tunemark.report.translation import make_translator as words_in
from tunemark.results import Result

Made = Callable[..., Result]


def sizes(made_run: Made, rates: dict[int, Sequence[float]], mode: str = "strong", **other: Any) -> list[Result]:
    """Runs of ddp on so many chips, taken in rounds: run i began i minutes after the round."""
    return [
        made_run(
            rates[n],
            minute=i,
            every=len(rates),
            **{
                "run_id": f"{i:016x}", "size": str(n), "chips": n, "processes": n, "data_ranks": n,
                "global_batch": 8 if mode == "strong" else 8 * n, "strategy_requested": "ddp", **other,
            },
        )
        for i, n in enumerate(rates)
    ]  # fmt: skip


def make_search_log(ranks: int) -> SearchLog:
    return SearchLog(
        requested={"micro_batch": 4}, free=(), ranks=ranks, global_batch=4 * ranks, candidates=2, possible=2, fitting=2,
        rejected={}, memory_bytes=None, source="", prediction_s=0.1,
    )  # fmt: skip


def only(found: Sequence[Scaling]) -> Scaling:
    (scaling,) = found
    return scaling


def best(scaling: Scaling, goal: str) -> BestSize:
    return next(each for each in scaling.best if each.goal == goal)


def test_speedup_and_efficiency_by_hand(made_run: Made) -> None:
    found = only(compute_scalings(sizes(made_run, {1: (100, 100), 2: (180, 180), 4: (240, 240)}), "strong"))
    assert found.base == "1"
    assert found.unit == "chips"
    assert [p.speedup.value for p in found.points if p.speedup] == pytest.approx([1, 1.8, 2.4])
    # 1.8 / 2 and 2.4 / 4.
    assert [p.efficiency.value for p in found.points if p.efficiency] == pytest.approx([1, 0.9, 0.6])
    # The second chip adds 80 of 100; the third and fourth add 60 together.
    assert [p.marginal_efficiency.value for p in found.points if p.marginal_efficiency] == pytest.approx([0.8, 0.3])
    assert [p.tokens_per_s_per_unit for p in found.points] == pytest.approx([100, 90, 60])


def test_a_base_of_four_chips_has_efficiency_one(made_run: Made) -> None:
    found = only(compute_scalings(sizes(made_run, {4: (100, 100), 8: (160, 160)}), "strong"))
    # S = 1.6, E = 1.6 x 4 / 8.
    assert found.points[0].efficiency is not None
    assert found.points[0].efficiency.value == 1
    assert found.points[1].efficiency is not None
    assert found.points[1].efficiency.value == pytest.approx(0.8)


def test_a_drift_that_rounds_share_does_not_widen_a_speedup(made_run: Made) -> None:
    # Every round is 10 % slower than the one before, and the second size exactly 1.9 times as fast in each.
    drifting = {1: (100.0, 90.0, 81.0), 2: (190.0, 171.0, 153.9)}
    in_rounds = only(compute_scalings(sizes(made_run, drifting), "strong")).points[1].speedup
    one_by_one = [made_run(rates, minute=100 * n, size=str(n), chips=n, run_id=str(n)) for n, rates in drifting.items()]
    apart = only(compute_scalings(one_by_one, "strong")).points[1].speedup
    assert in_rounds is not None
    assert apart is not None
    assert in_rounds.method.startswith("paired")
    assert (in_rounds.low, in_rounds.high) == pytest.approx((1.9, 1.9))
    assert apart.method.startswith("Welch")
    assert apart.low is not None
    assert apart.low < 1.6


def test_all_rates_times_k_leave_speedup_and_efficiency(made_run: Made) -> None:
    rates = {1: (100.0, 103.0, 98.0), 2: (181.0, 178.0, 185.0), 4: (260.0, 250.0, 255.0)}
    one = only(compute_scalings(sizes(made_run, rates), "strong"))
    many = only(compute_scalings(sizes(made_run, {n: [7 * x for x in r] for n, r in rates.items()}), "strong"))
    for a, b in zip(one.points, many.points, strict=True):
        assert a.speedup is not None
        assert b.speedup is not None
        assert (a.speedup.value, a.speedup.low, a.speedup.high) == pytest.approx(
            (b.speedup.value, b.speedup.low, b.speedup.high)
        )
        assert b.tokens_per_s_per_unit == pytest.approx(7 * (a.tokens_per_s_per_unit or 0))


def test_the_order_of_results_is_nothing(made_run: Made) -> None:
    runs = sizes(made_run, {1: (100.0, 103.0), 2: (181.0, 178.0), 4: (260.0, 250.0)})
    assert compute_scalings(runs, "strong") == compute_scalings(runs[::-1], "strong")


def test_strong_keeps_the_global_batch_and_weak_that_of_a_data_rank(made_run: Made) -> None:
    rates = {1: (100, 100), 2: (180, 180)}
    strong, weak = sizes(made_run, rates), sizes(made_run, rates, "weak")
    assert only(compute_scalings(strong, "strong")).batch == 8
    assert compute_scalings(strong, "weak") == ()
    assert only(compute_scalings(weak, "weak")).batch == 8
    assert compute_scalings(weak, "strong") == ()
    assert [s.mode for s in compute_all_scalings([*strong, *weak])] == ["strong", "weak"]
    assert only(compute_scalings(strong, "strong")).title == (
        "Strong scaling: toy on cpu, ddp, fp32, pack, sequence 10, global batch 8"
    )
    assert "batch per data rank 8" in only(compute_scalings(weak, "weak")).title


def test_runs_whose_data_ranks_do_not_grow_say_that_weak_is_strong(made_run: Made) -> None:
    runs = sizes(made_run, {1: (100, 100), 2: (180, 180)}, data_ranks=1)
    assert [s.mode for s in compute_all_scalings(runs)] == ["strong"]
    assert [f.rule for f in only(compute_scalings(runs, "weak")).findings] == ["weak-is-strong"]


def test_weak_scaling_of_a_search_keeps_the_batch_of_a_rank_whatever_it_chose(made_run: Made) -> None:
    # The first size is one process; on two ranks tensor parallelism was chosen, which has one data rank.
    runs = [
        made_run(
            (100 * n, 101 * n), minute=n, run_id=str(n), size=str(n), chips=n, data_ranks=1, global_batch=4 * n,
            strategy_requested="auto", search=make_search_log(n),
        )
        for n in (1, 2)
    ]  # fmt: skip
    found = only(compute_scalings(runs, "weak"))
    assert (found.batch, [p.global_batch for p in found.points]) == (4, [4, 8])
    assert found.title.endswith("batch per rank 4")
    assert found.findings == ()
    assert growth_title(found, words_in("en")).endswith("batch per rank 4")


def test_runs_that_differ_in_more_than_size_are_apart(made_run: Made) -> None:
    ddp = sizes(made_run, {1: (100, 100), 2: (180, 180)})
    fsdp = sizes(made_run, {1: (90, 90), 2: (150, 150)}, strategy_requested="fsdp")
    longer = sizes(made_run, {4: (300, 300)}, budget_s=99.0)
    found = compute_scalings([*ddp, *fsdp, *longer], "strong")
    assert [(s.strategy, len(s.points)) for s in found] == [("ddp", 2), ("fsdp", 2)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"oversubscribed": True}, "oversubscribed: more was asked for than the machine has"),
        ({"status": "oom", "verdict": "unknown"}, "its status is oom"),
        ({"verdict": "invalid"}, "its verdict is invalid"),
    ],
)
def test_what_takes_no_part_is_a_row_that_says_why(made_run: Made, changes: dict[str, Any], reason: str) -> None:
    rates = {n: (100.0 * n**0.8, 101.0 * n**0.8) for n in (1, 2, 4, 8)}
    runs = sizes(made_run, rates)
    last = sizes(made_run, {**rates, 16: (5000.0, 5000.0)}, **changes)[-1]
    found = only(compute_scalings([*runs, last], "strong"))
    last_point = found.points[-1]
    assert last_point.left_out == reason
    assert (last_point.speedup, last_point.efficiency, last_point.marginal_efficiency) == (None, None, None)
    assert last_point.tokens_per_s == last.tokens_per_s
    without = only(compute_scalings(runs, "strong"))
    assert found.fitted is not None
    assert without.fitted is not None
    assert found.fitted.fits == without.fitted.fits
    assert best(found, "fastest").size == "8"


def test_a_smallest_size_that_failed_is_not_the_base(made_run: Made) -> None:
    failed = made_run((), run_id="f", size="1", chips=1, strategy_requested="ddp", status="oom", verdict="unknown")
    found = only(compute_scalings([failed, *sizes(made_run, {2: (100, 100), 4: (150, 150)})], "strong"))
    assert found.base == "2"
    (told,) = found.findings
    assert (told.rule, told.severity) == ("base-is-not-smallest", "note")
    assert told.message.endswith("cpu:1 (its status is oom). Speed-ups are over cpu:2")
    assert found.points[0].speedup is None
    assert found.points[2].efficiency is not None
    assert found.points[2].efficiency.value == pytest.approx(0.75)


def test_two_sizes_have_no_fit_and_say_so(made_run: Made) -> None:
    found = only(compute_scalings(sizes(made_run, {1: (100, 100), 2: (180, 180)}), "strong"))
    assert found.fitted is None
    assert found.no_fit == "a fit needs at least 4 sizes that were measured well, there are 2"


def test_predictions_lie_beyond_the_sizes_and_are_called_so(made_run: Made) -> None:
    rates = {n: [1000 * n / (1 + 0.05 * (n - 1)) * x for x in (0.99, 1.0, 1.01)] for n in (1, 2, 4, 8)}
    found = only(compute_scalings(sizes(made_run, rates), "strong", predict=(32, 4))).fitted
    assert found is not None
    assert [p.units for p in found.predictions] == [16, 32]
    assert all(p.predicted for p in found.predictions)
    assert [c.units for c in found.curve if c.predicted][-1] == 32
    assert not any(c.predicted for c in found.curve if c.units <= 8)
    # 1000 x 16 / 1.75.
    assert found.predictions[0].tokens_per_s.value == pytest.approx(16000 / 1.75, rel=1e-3)
    assert found.predictions[0].efficiency.value == pytest.approx(1 / 1.75, rel=1e-3)


def test_a_serial_share_above_one_is_said_to_be_none(made_run: Made) -> None:
    # N / X is linear with twice the slope that one unit's time has: s = 2.
    rates = {n: [100 * n / (1 + 2 * (n - 1)) * x for x in (0.99, 1.0, 1.01)] for n in (1, 2, 4, 8)}
    found = only(compute_scalings(sizes(made_run, rates), "strong"))
    assert [f.rule for f in found.findings] == ["slower-than-one"]
    assert found.findings[0].message.startswith("s = 2.00 is no share")


def test_devices_count_where_chips_are_not_known(made_run: Made) -> None:
    # Half a package is no count of chips.
    half = made_run((60, 60), run_id="h", size="Small", chips=None, parts=1)
    one = made_run((120, 120), run_id="o", size="Medium", chips=1, parts=2)
    two = made_run((200, 200), run_id="t", size="Large", chips=2, parts=4)
    assert only(compute_scalings([one, two], "strong")).unit == "chips"
    found = only(compute_scalings([two, one, half], "strong"))
    assert (found.unit, found.base) == ("devices", "Small")
    assert [p.units for p in found.points] == [1, 2, 4]


def test_sizes_of_unknown_units_are_ordered_by_memory_and_have_no_efficiency(made_run: Made) -> None:
    big = made_run((180, 180), run_id="b", size="big", chips=None, memory_bytes=200)
    small = made_run((100, 100), run_id="a", size="small", chips=None, memory_bytes=100)
    found = only(compute_scalings([big, small], "strong"))
    assert [p.size for p in found.points] == ["small", "big"]
    assert found.points[1].speedup is not None
    assert found.points[1].speedup.value == pytest.approx(1.8)
    assert [p.efficiency for p in found.points] == [None, None]
    assert found.no_fit == "how many chips or devices each size has is not known, so there is no N to fit over"


def test_one_attempt_has_a_speedup_without_an_interval(made_run: Made) -> None:
    found = only(compute_scalings(sizes(made_run, {1: (100,), 2: (180,)}), "strong"))
    assert found.points[1].efficiency is not None
    assert (found.points[1].efficiency.value, found.points[1].efficiency.low) == (pytest.approx(0.9), None)
    assert not best(found, "fastest").shown


def test_communication_is_of_the_breakdown_or_unknown_with_a_reason(made_run: Made) -> None:
    runs = sizes(made_run, {1: (100, 100), 2: (180, 180)})
    parts = {"data": 0.1, "forward": 0.3, "backward": 0.4, "communication": 0.2}
    timed = sizes(made_run, {2: (150, 150)}, breakdown=True, breakdown_s=parts)
    overlapping = sizes(made_run, {2: (150, 150)}, breakdown=True, breakdown_s={"forward": 0.3, "backward": 0.7})
    assert only(compute_scalings([*runs, *timed], "strong")).points[1].communication_share == pytest.approx(0.2)
    for others, words in ((overlapping, "overlaps"), ([], "--breakdown")):
        point = only(compute_scalings([*runs, *others], "strong")).points[1]
        assert point.communication_share is None
        assert words in (point.communication_reason or "")


def test_choices_are_shown_where_intervals_set_them_apart(made_run: Made) -> None:
    clear = only(
        compute_scalings(sizes(made_run, {1: (100, 101, 99), 2: (180, 181, 179), 4: (230, 231, 229)}), "strong")
    )
    assert [(b.goal, b.size, b.shown) for b in clear.best] == [
        ("fastest", "4", True),
        ("cheapest", "1", True),
        ("knee", "2", True),
    ]
    # 1 chip / 100 tokens/s is 10,000 chip-seconds per million tokens; 2 / 180 is 11 % more.
    assert best(clear, "cheapest").evidence.startswith("10,000 chip-seconds per million tokens, 1.11 (")
    blurred = only(compute_scalings(sizes(made_run, {1: (100, 140, 70), 2: (120, 100, 125)}), "strong"))
    assert not best(blurred, "fastest").shown
    assert "no difference shown" in best(blurred, "fastest").evidence


def test_prices_decide_what_is_cheapest(made_run: Made) -> None:
    runs = sizes(made_run, {1: (100, 101, 99), 2: (180, 181, 179)})
    flat = Prices(currency="EUR", per_hour={"cpu:1": 3.6, "cpu:2": 3.6})
    found = only(compute_scalings(runs, "strong", prices=flat))
    assert best(found, "cheapest").size == "2"
    # 3.6 an hour is 0.001 a second; a million tokens take 5,556 s.
    assert best(found, "cheapest").evidence.startswith("5.556 EUR per million tokens")
    some = Prices(currency="EUR", per_hour={"cpu:1": 3.6})
    assert "chip-seconds" in best(only(compute_scalings(runs, "strong", prices=some)), "cheapest").evidence


def test_a_price_is_of_the_size_else_of_its_chips(made_run: Made) -> None:
    prices = Prices(currency="EUR", per_hour={"cpu:8": 10.0}, per_chip_hour={"cpu": 2.0, "fast core": 3.0})
    assert prices.hourly_price(made_run(size="8", chips=8)) == 10
    assert prices.hourly_price(made_run(size="4", chips=4)) == 8
    assert prices.hourly_price(made_run(size="4", chips=4, chip="fast core")) == 12
    assert prices.hourly_price(made_run(size="4", chips=None)) is None
    assert prices.hourly_price(made_run(device="moai", size="Small", chips=1)) is None
    # 8 an hour at 1,000 tokens/s.
    assert prices.per_million_tokens(made_run(size="4", chips=4), 1000) == pytest.approx(8 / 3.6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = ", "cannot read the prices"),
        ('currency = "USD"', "has no price"),
        ('currency = "USD"\n[per_hours]\n"cpu:1" = 1.0', "no key 'per_hours'"),
        ('currency = "USD"\n[per_hour]\n"cpu:1" = "1"', "is no price file"),
        ('currency = "USD"\n[per_hour]\n"cpu:1" = 0.0', "the price of 'cpu:1' is 0.0"),
        ('currency = "USD"\n[per_hour]\n"cpu:1" = nan', "the price of 'cpu:1' is nan"),
        ('[per_hour]\n"cpu:1" = 1', "is no price file"),
    ],
)
def test_a_price_file_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(BadExperiment, match=said):
        read_prices(tmp_path / "prices.toml")


def test_prices_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('currency = "USD"\n[per_hour]\n"cuda:8" = 24\n[per_chip_hour]\ncuda = 3.2\n')
    read = read_prices(tmp_path / "prices.toml")
    assert read == Prices(currency="USD", per_hour={"cuda:8": 24.0}, per_chip_hour={"cuda": 3.2})


def test_a_group_measured_under_two_versions_is_suspect(made_run: Made) -> None:
    one, two = sizes(made_run, {1: (100, 100), 2: (180, 180)})
    worker = {**two.environment["worker"], "torch": "2.1.0"}
    other = made_run(
        (180, 180), minute=1, run_id=two.run_id, size="2", chips=2, processes=2, data_ranks=2,
        strategy_requested="ddp", environment={**two.environment, "worker": worker},
    )  # fmt: skip
    (finding,) = only(compute_scalings([one, other], "strong")).findings
    assert (finding.rule, finding.severity) == ("sizes-differ", "suspect")
    assert "torch: 2.13.0; 2.1.0" in finding.message


def test_simulated_rows_say_so(made_run: Made) -> None:
    found = only(compute_scalings(sizes(made_run, {1: (100, 100), 2: (180, 180)}, simulated=True), "strong"))
    assert found.simulated
    assert found.title.endswith("(simulated)")
    assert all(p.simulated for p in found.points)


def test_a_rate_of_e_to_the_power_n_is_not_lost(made_run: Made) -> None:
    found = only(
        compute_scalings(sizes(made_run, {1: (math.exp(1), math.exp(3)), 2: (math.exp(4), math.exp(6))}), "strong")
    )
    # Geometric means e^2 and e^5.
    assert found.points[1].speedup is not None
    assert found.points[1].speedup.value == pytest.approx(math.exp(3))
