"""Ranks that repeat each other, runs that follow each other, clocks that begin again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tunemark.plugin.claims import Claim, LoggedStep, LogLine, NamedFigure
from tunemark_importers.line_prefixes import Prefix
from tunemark_importers.log_runs import LogRuns

ClaimsOf = Callable[[str, str], Sequence[Claim]]


def _line(step: int, before: str = "", rate: int = 1000) -> str:
    return f"{before}step: {step:2}  loss:  2.0000  memory:  1.00GiB(1.00%)  tps: {rate:,}  tflops: 1.00  mfu: 1.00%"


def test_a_step_that_every_rank_prints_counts_once(claims_of: ClaimsOf) -> None:
    text = "\n".join(_line(step, f"[rank{rank}]:", 1000 + rank) for step in range(1, 6) for rank in (3, 0, 1))
    (claim,) = claims_of("torchtitan", text)
    assert [(s.number, s.tokens_per_s) for s in claim.steps] == [(float(n), 1003.0) for n in range(1, 6)]
    assert claim.notes == ("10 step lines of other ranks (0, 1) are left out, rank 3 kept",)


def test_a_step_that_comes_twice_without_a_label_counts_once(claims_of: ClaimsOf) -> None:
    text = "\n".join(_line(step) for step in (1, 1, 2, 1, 2, 3, 3, 4))
    (claim,) = claims_of("torchtitan", text)
    assert [s.number for s in claim.steps] == [1, 2, 3, 4]
    assert claim.notes == ("4 lines repeat a step and are left out",)


def test_steps_that_begin_again_are_another_run(claims_of: ClaimsOf) -> None:
    small = ["Model llama3 8B size: 1,000 total parameters", *(_line(step) for step in (1, 10, 20))]
    large = ["Model llama3 70B size: 9,000 total parameters", *(_line(step) for step in (1, 10, 20, 30))]
    text = "\n".join([*small, *large])
    first, second = claims_of("torchtitan", text)
    assert (first.model, len(first.steps)) == ("llama3 8B", 3)
    assert (second.model, second.parameters, len(second.steps)) == ("llama3 70B", 9000.0, 4)


def test_a_resumed_run_stays_one_run(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtitan", "\n".join(_line(step) for step in (1, 10, 20, 30, 20, 30, 40)))
    assert [s.number for s in claim.steps] == [1, 10, 20, 30, 20, 30, 40]


def test_times_of_day_go_on_after_midnight(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtitan", f"{_line(1, '23:59:50 ')}\n{_line(2, '00:00:10 ')}\n{_line(3, '00:00:30 ')}")
    stamps = [s.stamp_s or 0.0 for s in claim.steps]
    assert [b - a for a, b in itertools.pairwise(stamps)] == [20.0, 20.0]


def test_a_fact_that_is_stated_twice_differently_is_unknown(claims_of: ClaimsOf) -> None:
    command = "python train.py --batch-size {}\n"
    (claim,) = claims_of("moai", command.format(256) + command.format(512) + "[Step 1/2] Loss: 1.5\n")
    assert claim.layout.global_batch is None
    assert "global_batch" not in claim.origin
    (note,) = claim.notes
    assert "'--batch-size 256', line 1; '--batch-size 512', line 2" in note


def test_many_runs_and_ranks_stay_bounded(claims_of: ClaimsOf) -> None:
    text = "\n".join(_line(step) for _ in range(200) for step in (1, 2, 3))
    claims = claims_of("torchtitan", text)
    assert len(claims) == 64
    assert "408 step lines of runs beyond the first 64 are left out" in claims[-1].notes


def test_figures_of_one_name_make_one_median_without_the_first_and_never_mix() -> None:
    runs = LogRuns(tool="any", meaning="", counts=None, scope="job")
    for number, (job, device) in enumerate([(1.0, 9.0), (80.0, 10.0), (90.0, float("nan")), (100.0, 12.0)], 1):
        runs.add(Prefix(""), LogLine(number, ""), LoggedStep(number, number=number, tokens_per_s=job))
        for name, value in (("tokens/s", job), ("tokens/s/device", device)):
            runs.add_figure(NamedFigure(name=name, quantity="tokens_per_s", value=value))
    (claim,) = runs.claims()
    job_figure, device_figure = claim.figures
    assert (job_figure.value, job_figure.lowest, job_figure.highest, job_figure.lines) == (90.0, 80.0, 100.0, 4)
    # The value that is not a number is left out.
    assert (device_figure.name, device_figure.value, device_figure.lines) == ("tokens/s/device", 11.0, 3)
