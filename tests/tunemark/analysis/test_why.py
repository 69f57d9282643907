"""What differs between two runs, each weight worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunemark.analysis.cause_weights import PAGE_FAULT_S
from tunemark.analysis.drift import summarize_step_times
from tunemark.analysis.why import Cause, Explanation, explain_difference
from tunemark.errors import BadExperiment
from tunemark.report.why import why_text
from tunemark.results import Result
from tunemark.results.result import StepTime, TimedTokens, encode_result
from tunemark.results.trace import Trace, TraceWindow, encode_traces

Made = Callable[..., Result]


def _cause(found: Explanation, name: str) -> Cause:
    return next(cause for cause in found.causes if cause.name == name)


def _with(result: Result, place: str, **facts: Any) -> Result:
    environment = {**result.environment, place: {**(result.environment.get(place) or {}), **facts}}
    return msgspec.structs.replace(result, environment=environment)


def _loaded(result: Result, others: float, faults: float) -> Result:
    rows = [
        msgspec.structs.replace(row, others_load=others, minor_faults_per_step=faults) for row in result.each_attempt
    ]
    return msgspec.structs.replace(result, each_attempt=tuple(rows))


def test_causes_are_ranked_by_what_they_can_matter(made_run: Made) -> None:
    a = _with(made_run(), "worker", allocator={"GLIBC_TUNABLES": "x"})
    b = _with(made_run((50.0, 51.0, 49.0), minute=9, seed=1, micro_batch=2), "worker", torch="2.12.0", allocator={})
    found = explain_difference(a, b)
    assert [cause.name for cause in found.causes] == ["allocator", "torch", "micro_batch", "seed"]
    assert [cause.factor for cause in found.causes] == [2.2, pytest.approx(5500 / 3700), None, 1.0]
    assert [cause.weight for cause in found.causes] == ["seen elsewhere", "seen elsewhere", "unknown", "bound"]
    assert _cause(found, "allocator").b == "as the system has it"
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(49.99 / 100, rel=1e-3)
    text = why_text(found)
    assert "| 1 | allocator | host | GLIBC_TUNABLES=x | as the system has it | 2.20 x | - |" in text
    assert "| 3 | micro_batch | setting | 1 | 2 | unknown | - |" in text


@pytest.mark.parametrize(
    "other", [{"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}]
)
def test_other_allocators_have_no_weight_of_glibcs(made_run: Made, other: dict[str, str]) -> None:
    a = _with(made_run(), "worker", allocator=other)
    b = _with(made_run((50.0, 51.0, 49.0), minute=9), "worker", allocator={})
    assert _cause(explain_difference(a, b), "allocator").weight == "unknown"


def test_what_can_be_worked_out_is(made_run: Made) -> None:
    a = _loaded(made_run(padding_fraction=0.4, batching="pad"), 0.0, 1000)
    b = _loaded(
        made_run((80.0, 81.0, 79.0), minute=9, padding_fraction=0.0, flops_per_token=12000.0, model="big"), 0.2, 0
    )
    found = explain_difference(a, b)
    assert _cause(found, "batching").expected == pytest.approx(1 / 0.6)
    assert _cause(found, "model").expected == pytest.approx(6000 / 12000)
    assert _cause(found, "load of others").expected == pytest.approx(0.8)
    assert found.explained == pytest.approx(1 / 0.6 * 0.5 * 0.8)


def test_page_faults_bound_what_they_can_have_taken(made_run: Made) -> None:
    a, b = _loaded(made_run(), 0.0, 1000), _loaded(made_run((80.0, 81.0, 79.0), minute=9, processes=2), 0.0, 50_000)
    cause = _cause(explain_difference(a, b), "minor faults per step")
    # Of B's step, two processes fault at once; without it, the step would be that much shorter.
    step_s = (b.interval_s or 0) / b.steps_measured
    assert cause.factor == pytest.approx(step_s / (step_s - 50_000 * PAGE_FAULT_S / 2))
    assert (cause.weight, cause.expected) == ("bound", None)


def test_one_difference_is_worked_out_once(made_run: Made) -> None:
    one = {"peak_flops": 1e12, "size": "1", "chips": 1}
    two = {"peak_flops": 2e12, "size": "2", "chips": 2, "threads": 2}
    found = explain_difference(made_run(**one), made_run((150.0, 151.0, 149.0), minute=9, **two))
    assert found.explained == pytest.approx(2)
    worked = [cause for cause in found.causes if cause.expected is not None]
    assert len(worked) == 1
    assert {c.name for c in found.causes if c.basis == f"worked out under {worked[0].name}"} == {
        "size", "chips", "threads"
    } - {worked[0].name}  # fmt: skip


def test_clocks_bound_what_a_governor_can_do(made_run: Made) -> None:
    clocks = {"clock_min_hz": 1_000_000_000, "clock_max_hz": 3_000_000_000}
    a = _with(made_run(), "host", governor="performance", **clocks)
    b = _with(made_run(minute=9), "host", governor="powersave", **clocks)
    assert _cause(explain_difference(a, b), "host governor").factor == pytest.approx(3)
    unknown = [_with(made_run(), "host", governor=word) for word in ("performance", "powersave")]
    cause = _cause(explain_difference(*unknown), "host governor")
    assert (cause.weight, cause.factor) == ("seen elsewhere", pytest.approx(26.4 / 19.6))


def test_facts_that_one_side_does_not_say_are_unknown_and_no_cause(made_run: Made) -> None:
    found = explain_difference(made_run(), _with(made_run(minute=9), "host", governor="powersave"))
    assert found.causes == ()
    assert "host governor" in found.unknown
    text = why_text(found)
    assert "No recorded fact differs" in text
    assert "not recorded by both runs" in text
    assert "no difference is shown" in text


def test_the_rate_is_the_product_of_its_pieces(made_run: Made) -> None:
    a = made_run(tokens=TimedTokens(slots=3000, content=2400, trained=2000))
    b = made_run((50.0, 50.0, 51.0), minute=9, tokens=TimedTokens(slots=3000, content=3000, trained=2000))
    found = explain_difference(a, b)
    ratios = {piece.name: piece.ratio for piece in found.pieces}
    assert ratios["content share of slots"] == pytest.approx(1.25)
    product = ratios["slots per step"] * ratios["content share of slots"] * ratios["steps per second"]
    rates = [r.tokens.content / r.interval_s for r in (a, b) if r.tokens and r.interval_s]
    assert product == pytest.approx(rates[1] / rates[0])


def test_parts_of_a_step_say_where_the_time_went(made_run: Made) -> None:
    slow = {"forward": 0.4, "backward": 0.8, "optimizer": 0.6}
    fast = {"forward": 0.4, "backward": 0.7, "optimizer": 0.2, "data": 0.1}
    parts = (made_run(breakdown=True, breakdown_s=fast), made_run(breakdown=True, breakdown_s=slow))
    found = explain_difference(made_run(), made_run((60.0, 61.0, 59.0), optimizer="sgd", minute=9), breakdowns=parts)
    assert [(part.name, part.share) for part in found.parts[:2]] == [
        ("optimizer", pytest.approx(0.4 / 0.4)), ("backward", pytest.approx(0.1 / 0.4))
    ]  # fmt: skip
    assert found.parts[2].b_s is None
    # Without its 0.6 of 1.8 s, a step would be 1.8 / 1.2 times as fast.
    assert _cause(found, "optimizer").factor == pytest.approx(1.5)
    text = why_text(found)
    assert "| optimizer | 0.200 | 0.600 | +0.400 | 100 |" in text
    assert "| data | 0.100 | - | -0.100 |" in text


def _trace(times: list[float], *, run_id: str = "0123456789abcdef", warmup: int = 1, windows: int = 0) -> Trace:
    """One attempt of windows of a step each."""
    kept = tuple(TraceWindow(i + 1, math.fsum(times[: i + 1]), t, 10, 10, 10) for i, t in enumerate(times))
    return Trace(
        run_id=run_id, attempt="a", rank=0, first=warmup, last=len(times), windows=windows or len(times), kept=kept
    )  # fmt: skip


def test_a_wide_step_is_not_a_slow_one() -> None:
    trace = _trace([9.0, *[1.0, 3.0] * 5])
    kept = tuple(msgspec.structs.replace(w, slots=10 if w.step_time_s == 1.0 else 30) for w in trace.kept)
    found = summarize_step_times([msgspec.structs.replace(trace, kept=kept)])
    assert found is not None
    assert (found.slow, found.median_s, found.mean_s, found.drift) == (0, 2.0, 2.0, 1.0)


def test_a_mean_step_is_the_median_one_and_what_slower_ones_add() -> None:
    # The warm-up's 9 s count nowhere. 10 steps: median 1, one of 3 adds 2 / 10 to the mean.
    found = summarize_step_times([_trace([9.0, *[1.0] * 9, 3.0])])
    assert found is not None
    assert (found.windows, found.slow) == (10, 1)
    assert (found.mean_s, found.median_s, found.slow_s) == pytest.approx((1.2, 1.0, 2.0))
    # Thirds of three windows each: 1, 1, 1 and 1, 1, 3.
    assert found.drift == pytest.approx(1.0)
    assert summarize_step_times([]) is None
    assert summarize_step_times([_trace([9.0])]) is None
    # A part of the windows, chosen by their extremes, has no middle.
    assert summarize_step_times([_trace([1.0] * 5, windows=50)]) is None


def test_steps_of_several_in_a_window_weigh_as_many() -> None:
    kept = (TraceWindow(1, 9.0, 9.0, 1, 1, 1), TraceWindow(5, 13.0, 1.0, 1, 1, 1), TraceWindow(7, 17.0, 2.0, 1, 1, 1))
    found = summarize_step_times([Trace(run_id="a", attempt="a", rank=0, first=1, last=7, windows=3, kept=kept)])
    assert found is not None
    assert found.mean_s == pytest.approx((4 * 1.0 + 2 * 2.0) / 6)
    assert found.drift is None


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([1.0, *[1.0] * 9, 6.0], "Most of the change is in some slow steps"),
        ([1.5, *[1.5] * 10], "Most of the change is in every step"),
        ([1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], "B became slower while it was timed"),
    ],
)
def test_raw_steps_tell_a_disturbance_from_a_difference(made_run: Made, times: list[float], words: str) -> None:
    even = [_trace([1.0] * 11)]
    assert words in why_text(explain_difference(made_run(), made_run(minute=9), traces=(even, [_trace(times)])))
    assert "timed steps, one by one" not in why_text(
        explain_difference(made_run(), made_run(minute=9), traces=(even, []))
    )


def test_seconds_of_steps_that_hold_other_batches_are_said_to(made_run: Made) -> None:
    a, b = (made_run(minute=9 * i, tokens=TimedTokens(slots=3000 * (i + 1), content=1, trained=1)) for i in range(2))
    assert (
        "a step of A has 100 slots, one of B 200: seconds per step are not of the same work"
        in explain_difference(a, b).notes
    )


def test_the_middle_and_the_tail_of_steps_are_held_apart(made_run: Made) -> None:
    times = [StepTime(p50=0.4, p95=0.5), StepTime(p50=0.4, p95=1.0)]
    a, b = (made_run(step_time_s=time, minute=9 * i) for i, time in enumerate(times))
    text = why_text(explain_difference(a, b))
    assert "at its median 0.400 and 0.400 s (1.00 x), at its 95th percentile 0.500 and 1.00 s (2.00 x)" in text


def test_a_run_that_failed_is_explained_too(made_run: Made) -> None:
    found = explain_difference(made_run(), made_run((), status="oom", micro_batch=64))
    assert found.ratio is None
    assert "B takes no part: oom" in found.reason
    assert [cause.name for cause in found.causes] == ["micro_batch"]
    assert "B ended oom" in why_text(found)


def test_simulated_with_measured_is_refused(made_run: Made) -> None:
    with pytest.raises(BadExperiment, match="simulated"):
        explain_difference(made_run(), made_run(simulated=True))


def test_the_command_pairs_the_same_runs_and_asks_where_there_are_others(
    made_run: Made, command: Callable[..., Any], tmp_path: Path
) -> None:
    def folder(name: str, *results: Result) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.jsonl").write_text("".join(encode_result(result) + "\n" for result in results))

    plain, timed = made_run(run_id="aa"), made_run(run_id="bb", breakdown=True, breakdown_s={"forward": 1.0})
    folder("one", plain, timed)
    folder("two", made_run((50.0, 51.0, 49.0), run_id="aa", minute=9), timed)
    traces = encode_traces([_trace([1.0] * 9, run_id="aa")])
    for name in ("one", "two"):
        (tmp_path / name / "steps.jsonl").write_bytes(traces)
    folder("many", made_run(run_id="cc", seed=1), made_run(run_id="dd", seed=2))
    done = command("why", "one", "two", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["a_run"], found["b_run"], found["parts"][0]["name"]) == ("aa", "aa", "forward")
    # One run that is named has its parts in the run beside it, and its steps in the folder's.
    named = json.loads(command("why", "one:aa", "two:aa", "--json").stdout)
    assert (named["parts"], named["pace"]) == (found["parts"], found["pace"])
    assert named["pace"][1]["windows"] == 8
    done = command("why", "one", "many")
    assert done.returncode == 2
    assert "many:cc, many:dd" in done.stderr
    assert command("why", "one", "many:cc").returncode == 0
    assert "no run zz" in command("why", "one", "many:zz").stderr
