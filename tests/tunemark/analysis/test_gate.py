"""The gate's promise on simulated series with known effects, and what it says where it cannot judge."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy import stats

from tunemark.analysis.gate import GateCriteria, GatedRun, compute_sensitivities, gate
from tunemark.report.gate import gate_comment, gate_junit, gate_text, outlook_text
from tunemark.results import Result, slowdown_test
from tunemark.results.result import encode_result

Made = Callable[..., Result]

_PROMISE = GateCriteria()


def _one(found: Any) -> GatedRun:
    (judgement,) = found.runs
    assert isinstance(judgement, GatedRun)
    return judgement


def _draw(chance: random.Random, n: int, sd: float, change: float = 0.0) -> list[float]:
    return [math.exp(chance.gauss(math.log(1000 * (1 - change)), sd)) for _ in range(n)]


def _series(chance: random.Random, k: int, n: int, between: float, within: float) -> list[list[float]]:
    return [_draw(chance, n, within, 1 - math.exp(chance.gauss(0, between))) for _ in range(k)]


def _most(trials: int, p: float) -> int:
    """The count that is exceeded by chance in one of a thousand."""
    return int(stats.binom.ppf(0.999, trials, p))


def test_power_is_that_of_scipy_where_the_noise_is_known() -> None:
    # 5 and 4 attempts, sd 2 %: shift -log 0.95 / (0.02 x sqrt(1/5 + 1/4)), 7 degrees of freedom.
    error = 0.02 * math.sqrt(1 / 5 + 1 / 4)
    theirs = stats.nct.sf(stats.t.ppf(0.95, 7), 7, -math.log(0.95) / error)
    assert slowdown_test.detection_power(0.05, error, 10**6, 7, 0.05) == pytest.approx(theirs, abs=1e-4)
    # Noise that is only estimated promises less.
    assert slowdown_test.detection_power(0.05, error, 4, 7, 0.05) < theirs - 0.02


def test_the_assurance_is_the_mean_over_what_the_estimate_leaves_possible() -> None:
    error, df = 0.015, 4
    chance = random.Random(3)
    draws = [math.sqrt(sum(chance.gauss(0, 1) ** 2 for _ in range(df)) / df) for _ in range(1000)]
    critical = stats.t.ppf(0.95, 7)
    seen = [stats.nct.sf(critical, 7, -math.log(0.95) / error * s) for s in draws]
    assert slowdown_test.detection_power(0.05, error, df, 7, 0.05) == pytest.approx(sum(seen) / len(seen), abs=0.02)


def test_the_gate_keeps_its_promises_on_series_of_known_effect() -> None:
    """Printed with -s: false alarms, and how often a true slow-down of 5 % is caught with as many attempts as the
    gate asks for by the noise of each simulated baseline."""
    chance = random.Random(20261126)
    trials = 2000

    @functools.cache
    def asked_for(sd: float, n: int) -> int | None:
        return slowdown_test.attempts_needed(0.05, slowdown_test.Noise(sd, n - 1, n), 0.8, 0.05)

    print("\nbaseline                          noise  new  false alarms (promised 5 %)  caught 5 % (promised 80 %)")
    for n, sd in ((3, 0.01), (5, 0.02), (10, 0.03), (30, 0.05)):
        alarms = caught = asked = out_of_reach = 0
        news = []
        for _ in range(trials):
            base = [_draw(chance, n, sd)]
            found = slowdown_test.estimate_slowdown(base, _draw(chance, 3, sd))
            assert found is not None
            alarms += found.p <= 0.05
        for _ in range(trials // 10):
            base = [_draw(chance, n, sd)]
            noise = slowdown_test.estimate_noise(base)
            assert noise is not None
            # Two digits of the noise, so that what is asked for is worked out some fifty times, not hundreds.
            attempts = asked_for(float(f"{noise.sd:.2g}"), n)
            if attempts is None:
                out_of_reach += 1
                continue
            asked += 1
            news.append(attempts)
            found = slowdown_test.estimate_slowdown(base, _draw(chance, attempts, sd, change=0.05))
            assert found is not None
            caught += found.p <= 0.05
        middle = sorted(news)[len(news) // 2]
        words = f"{n:2} attempts of one series         {100 * sd:4.1f} %  {middle:3}  {100 * alarms / trials:8.1f} %"
        print(
            f"{words}                     {100 * caught / asked:.1f} %, out of reach {out_of_reach} of {trials // 10}"
        )
        assert alarms <= _most(trials, 0.05)
        assert asked - caught <= _most(asked, 0.2)
    for k, between in ((3, 0.01), (8, 0.015)):
        alarms = 0
        for _ in range(trials):
            base = _series(chance, k, 3, between, 0.01)
            (new,) = _series(chance, 1, 3, between, 0.01)
            found = slowdown_test.estimate_slowdown(base, new)
            assert found is not None
            alarms += found.p <= 0.05
        print(f"{k:2} series that differ by {100 * between:.1f} %         1.0 %    3  {100 * alarms / trials:8.1f} %")
        assert alarms <= _most(trials, 0.05)


def test_the_whole_gate_raises_few_false_alarms_over_several_runs_together(made_run: Made) -> None:
    chance = random.Random(5)
    sets, alarms, caught = 60, 0, 0
    for _ in range(sets):
        runs = [made_run(_draw(chance, 2, 0.01), seed=i, run_id=str(i), minute=at) for i in range(4) for at in (0, 30)]
        again = [made_run(_draw(chance, 4, 0.01), seed=i, run_id=str(i), minute=60) for i in range(4)]
        alarms += gate(runs, again, _PROMISE).verdict == "fail"
        again[2] = made_run(_draw(chance, 4, 0.01, change=0.05), seed=2, run_id="2", minute=60)
        found = gate(runs, again, _PROMISE)
        caught += found.runs[2].verdict == "fail"
        assert found.verdict == "fail" if found.runs[2].verdict == "fail" else True
    print(f"\nof {sets} sets of 4 unchanged runs {alarms} fail; one run 5 % slower is caught in {caught}")
    assert alarms <= _most(sets, 0.05)
    assert sets - caught <= _most(sets, 0.2)


def test_pass_fail_and_no_verdict(made_run: Made) -> None:
    base = [made_run((100.0, 100.5)), made_run((99.5, 100.2), minute=30)]
    same = _one(gate(base, [made_run((100.1, 99.8, 100.3), minute=60)], _PROMISE))
    assert same.verdict == "pass"
    assert same.power is not None
    assert same.power >= 0.8
    slow = _one(gate(base, [made_run((95.0, 95.4, 94.8), minute=60)], _PROMISE))
    assert (slow.verdict, slow.reason[:13]) == ("fail", "slower by 4.9")
    faster = _one(gate(base, [made_run((120.0, 120.4, 119.8), minute=60)], _PROMISE))
    assert faster.verdict == "pass"
    noisy = [made_run((100.0, 120.0, 85.0)), made_run((90.0, 111.0, 105.0), minute=30)]
    unclear = _one(gate(noisy, [made_run((97.0, 110.0, 90.0), minute=60)], _PROMISE))
    assert unclear.verdict == "no verdict"
    assert unclear.needed is not None
    assert "that takes" in unclear.reason
    # One attempt is judged by the noise of the baseline.
    single = _one(gate(base, [made_run((80.0,), minute=60)], _PROMISE))
    assert (single.verdict, single.attempts) == ("fail", 1)


def test_the_attempts_it_asks_for_are_enough_in_the_same_noise(made_run: Made) -> None:
    noise = slowdown_test.Noise(0.02, 9, 10)
    wanted = slowdown_test.attempts_needed(0.05, noise, 0.8, 0.05)
    assert wanted is not None
    for n in (wanted - 1, wanted):
        seen = slowdown_test.detection_power(0.05, 0.02 * math.sqrt(1 / 10 + 1 / n), 9, 10 + n - 2, 0.05)
        assert (seen >= 0.8) == (n == wanted)
    assert slowdown_test.attempts_needed(0.01, slowdown_test.Noise(0.05, 2, 3), 0.8, 0.05) is None
    more = [slowdown_test.attempts_needed_of_both(change, noise, 0.8, 0.05) for change in (0.01, 0.02, 0.05)]
    assert more == sorted(more, key=lambda n: -(n or 0)), "smaller changes take more"


@pytest.mark.parametrize(
    ("baseline", "run", "reason"),
    [
        ({"rates": (100.0,)}, {}, "one attempt: its noise is not known"),
        ({}, {"status": "oom", "rates": ()}, "nothing to judge: oom"),
        ({}, {"verdict": "invalid"}, "nothing to judge: invalid: made"),
        ({"verdict": "invalid"}, {}, "no run of the baseline is fit: invalid: made"),
        ({"precision": "bf16"}, {}, "comes nearest, but for precision (fp32, bf16)"),
        ({"simulated": True}, {}, "comes nearest, but for simulated (no, yes)"),
        ({"environment": {"host": {"name": "h", "processor": "Q"}}}, {}, "but for processor (P, Q)"),
    ],
)
def test_what_cannot_be_judged_has_no_verdict_and_a_reason(
    made_run: Made, baseline: dict[str, Any], run: dict[str, Any], reason: str
) -> None:
    rates: Sequence[float] = (100.0, 101.0, 99.0)
    base = made_run(baseline.pop("rates", rates), **baseline)
    new = made_run(run.pop("rates", rates), minute=60, **run)
    found = gate([base], [new], _PROMISE)
    assert found.verdict == "no verdict"
    assert reason in _one(found).reason


def test_a_store_is_no_baseline_of_itself(made_run: Made) -> None:
    run = made_run()
    assert "this very measurement" in _one(gate([run], [run], _PROMISE)).reason
    other = made_run(run_id="f" * 16, sequence=64)
    assert "this very measurement" in _one(gate([run, other], [run], _PROMISE)).reason


def test_load_of_others_is_no_noise_unless_it_is_asked_to_be(made_run: Made) -> None:
    from tunemark.plugin import Finding

    loaded = Finding(rule="heavy-load", severity="suspect", message="made")
    new = made_run(minute=60, verdict="suspect", findings=(loaded,))
    assert "other processes used its cores" in _one(gate([made_run()], [new], _PROMISE)).reason
    counted = _one(gate([made_run()], [new], _PROMISE, despite=["heavy-load"]))
    assert counted.ratio is not None
    assert "suspect: heavy-load" in counted.notes


def test_series_of_a_baseline_are_the_units_from_three_on(made_run: Made) -> None:
    # Each series is quiet, but they differ by some percent: a new one that lies among them is no slow-down.
    levels = (100.0, 104.0, 97.0, 101.0)
    base = [made_run((x, 1.001 * x, 0.999 * x), minute=60 * i) for i, x in enumerate(levels)]
    new = made_run((97.5, 97.6, 97.4), minute=600)
    among = _one(gate(base, [new], _PROMISE))
    assert among.verdict != "fail"
    assert among.unit == "series"
    assert "one new series cannot show it" in among.reason
    alone = _one(gate(base[:1], [new], _PROMISE))
    assert alone.verdict == "no verdict", "one series knows nothing of what differs between them"
    assert "the baseline is one series" in alone.reason
    assert alone.ratio is not None
    assert "two series differ" in _one(gate(base[:2], [new], _PROMISE)).reason


def test_junit_and_comment_hold_any_name(made_run: Made) -> None:
    name = "a|b<script>alert(1)</script>&\x00\x1b]0;x\x07"
    slow = made_run((50.0, 50.1, 49.9), model=name, minute=60)
    base = [made_run((100.0, 100.1, 99.9), model=name, minute=at) for at in (0, 30)]
    found = gate(base, [slow], _PROMISE)
    (case,) = ElementTree.fromstring(gate_junit(found)).iter("testcase")
    failure = case.find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("slower by 50")
    assert "<script>" in case.attrib["name"], "as text, not as an element"
    comment = gate_comment(found).decode()
    assert comment.startswith("<!-- tunemark gate -->\n### tunemark: FAIL (1 fail)\n")
    assert "\\<script\\>" in comment
    assert "<script>" not in comment
    assert "| FAIL | 0.5000 (" in comment


def test_no_verdict_is_a_skipped_case_and_simulated_is_said(made_run: Made) -> None:
    found = gate([made_run((100.0,), simulated=True)], [made_run(simulated=True, minute=9), made_run()], _PROMISE)
    assert not [run.label for run in found.runs if "imulated" in run.label]
    suite = ElementTree.fromstring(gate_junit(found))
    assert suite.attrib | {"tests": "2", "failures": "0", "skipped": "2"} == suite.attrib
    assert suite.find("testsuite/testcase/skipped") is not None
    assert "SIMULATED" in gate_text(found)


def test_a_baseline_alone_says_what_it_can_see(made_run: Made) -> None:
    (one,) = compute_sensitivities([made_run((100.0, 101.0, 99.0, 100.5))], [0.05, 0.01], _PROMISE)
    assert one.needed["0.05"].attempts is not None
    assert one.needed["0.01"].of_both is not None
    text = outlook_text([one], 0.8, 0.05)
    assert f"| {one.needed['0.05'].attempts} attempt" in text
    assert (
        compute_sensitivities([made_run((100.0,))], [0.05], _PROMISE)[0].reason == "one attempt says nothing of noise"
    )


def test_the_command_ends_with_the_verdicts_code(made_run: Made, command: Callable[..., Any], tmp_path: Path) -> None:
    folders = {
        "base": made_run((100.0, 100.5, 99.5, 100.2)),
        "again": made_run((99.8, 100.4, 100.0), minute=30),
        "same": made_run((100.1, 99.8, 100.3), minute=60),
        "slow": made_run((90.0, 90.2, 89.7), minute=60),
    }
    for name, result in folders.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.jsonl").write_text(encode_result(result) + "\n")
    done = command("gate", "--baseline", "base", "slow")
    assert (done.returncode, done.stdout[:10]) == (3, "NO VERDICT"), "of one series"
    done = command("gate", "--baseline", "base", "--baseline", "again", "same", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "pass")
    done = command(
        "gate", "--baseline", "base", "--baseline", "again", "slow", "--junit", "ci/j.xml", "--comment", "ci/c.md"
    )
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL (1 fail)\n")
    assert "<failure" in (tmp_path / "ci/j.xml").read_text()
    assert "### tunemark: FAIL" in (tmp_path / "ci/c.md").read_text()
    done = command("gate", "--baseline", "base", "base")
    assert (done.returncode, done.stdout[:10]) == (3, "NO VERDICT")
    (tmp_path / "empty").mkdir()
    for words in (("empty",), ("same", "--change", "0"), ("same", "--despite", "colour"), ("nowhere",)):
        done = command("gate", "--baseline", "base", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "Traceback" not in done.stderr
        assert "next:" in done.stderr
