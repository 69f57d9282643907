"""The spellings of MoAI's tutorial logs, and what their figure means: slots of the whole job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tunemark.plugin.claims import Claim, LoggedStep
from tunemark_importers import moai

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


@pytest.fixture
def stamped(printed: Printed, claims_of: ClaimsOf) -> Claim:
    (claim,) = claims_of("moai", printed("moai-stamped.txt"))
    return claim


def test_a_rate_is_slots_of_the_whole_job_over_the_printed_duration(stamped: Claim) -> None:
    assert (stamped.counts, stamped.scope) == ("slots", "job")
    assert stamped.layout.global_batch == 128
    assert stamped.sequence == 1024
    for step in stamped.steps:
        # Padding is counted: batch x block, whatever the texts; durations have two decimals.
        assert (step.tokens_per_s or 0) * (step.duration_s or 0) == pytest.approx(128 * 1024, rel=1e-5)
        assert step.duration_steps == 1.0


def test_a_lines_own_clock_is_kept_beside_its_duration(stamped: Claim) -> None:
    steps = list(stamped.steps)
    assert steps[0] == LoggedStep(
        21, number=1.0, duration_s=58.4, duration_steps=1.0, tokens_per_s=2244.38, loss=1.21875, stamp_s=1710148544.678
    )
    # 146.022 s by the stamps for nine steps, of which the durations show 58.95.
    assert (steps[-1].stamp_s or 0) - (steps[0].stamp_s or 0) == pytest.approx(146.022)
    assert sum(s.duration_s or 0 for s in steps[1:]) == pytest.approx(58.95)
    assert "before the loss is read" in stamped.meaning


def test_the_selected_parallelism_is_taken_from_the_platforms_lines(stamped: Claim) -> None:
    layout = stamped.layout
    assert (layout.pp, layout.tp, layout.micro_batch, layout.gradient_accumulation) == (2, 1, 1, 16)
    assert layout.checkpointing == "none"
    assert "num_stages : 2" in stamped.origin["pp"]
    assert stamped.origin["global_batch"] == "'--batch-size 128', line 1"
    assert stamped.notes[:4] == (
        "nodes connected: 2 (line 7)",
        "the virtual device is 'Example Accelerator' (line 9)",
        "12 candidates for parallelism (line 10)",
        "31007 ms to compile all candidates (line 12)",
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [("false", "none"), ("0", "none"), ("full(2)", "full"), ("true", None), ("1", None), ("default(1)", None)],
)
def test_recomputation_is_known_only_where_its_extent_is(claims_of: ClaimsOf, words: str, expected: str | None) -> None:
    config = f"No PP, No TP, recomputation : {words}, distribute_param : true"
    (claim,) = claims_of("moai", f"{config}\n[Step 1/2] Loss: 1.5\n")
    assert (claim.layout.checkpointing, claim.layout.pp) == (expected, 1)


def test_lines_without_stamps_have_none(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", printed("moai-plain.txt"))
    assert [s.number for s in claim.steps] == [2, 4, 6, 8, 10, 12]
    assert all(s.stamp_s is None for s in claim.steps)
    assert claim.steps_total == 36


def test_baichuans_lines_have_no_blank_before_the_unit(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", printed("moai-baichuan.txt"))
    steps = list(claim.steps)
    assert (len(steps), steps[0].tokens_per_s, steps[-1].loss) == (10, 411.2072530211, 2.05625)


def test_gpts_steps_are_numbered_from_zero(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", printed("moai-gpt.txt"))
    assert "steps are numbered from 0" in claim.notes
    assert [s.number for s in claim.steps] == [0, 10, 20, 30, 40, 50]


def test_a_window_is_all_steps_since_the_last_line_but_the_first_of_an_epoch(
    printed: Printed, claims_of: ClaimsOf
) -> None:
    (claim,) = claims_of("moai", printed("moai-window.txt"))
    first, *windows = (s for s in claim.steps if s.tokens_per_s or s.number == 1)
    assert (first.number, first.duration_s, first.duration_steps) == (1.0, 119.97, 1.0)
    assert [s.duration_steps for s in windows] == [9, 10, 10, 9, 10, 10]
    for step in windows:
        tokens = (step.tokens_per_s or 0) * (step.duration_s or 0) / (step.duration_steps or 0)
        assert tokens == pytest.approx(256 * 1024, rel=2e-4)
        assert (step.samples_per_s or 0) * 1024 == pytest.approx(step.tokens_per_s, rel=1e-3)
    assert (claim.method, claim.trainable_parameters, claim.parameters) == ("lora", 13631488, 7255363584)
    assert "after the loss was read" in claim.meaning


def test_a_window_of_unknown_steps_has_no_duration(claims_of: ClaimsOf) -> None:
    line = "[Step {}/90] | Loss: 1.5 | Duration: 20.00 | 12.80 | Throughput: 13107.20 tokens/sec\n"
    (claim,) = claims_of("moai", line.format(40) + line.format(50))
    assert [(s.duration_s, s.duration_steps) for s in claim.steps] == [(None, None), (20.0, 10.0)]


def test_lines_of_the_trainer_say_the_mean_time_of_a_step(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", printed("moai-tps.txt"))
    steps = list(claim.steps)
    assert [s.number for s in steps] == [1, 5, 10, 15, 20, 25]
    assert (steps[1].tokens_per_s, steps[1].duration_s, steps[1].duration_steps) == (16633.5, 3.94, 1.0)
    assert (claim.layout.global_batch, claim.sequence, claim.method) == (64, 1024, "full")
    # The performance summary at the end.
    assert (claim.train_s, claim.tokens_per_s) == (199.18, 16528.76)


def test_dictionaries_are_windows_too(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", printed("moai-dict.txt"))
    warm_up, unknown, *steps = claim.steps
    assert warm_up.duration_s == 402.77
    assert (unknown.number, unknown.duration_s) == (10.0, None)
    assert [s.duration_steps for s in steps] == [10, 10, 10, 10]
    assert (claim.sequence, claim.train_s) == (1024, 655.8112)
    assert not claims_of("huggingface-log", printed("moai-dict.txt"))[0].steps.seen


def test_two_records_on_one_line_are_two(claims_of: ClaimsOf) -> None:
    line = "[Step {0}/9] | Loss: 1.5 | Duration: 2.00 | Throughput: 512.00 tokens/sec"
    prefix = "2024-03-11 09:16:0{0}.000 | INFO | __main__:main:149 - "
    (claim,) = claims_of("moai", "".join(prefix.format(n) + line.format(n) for n in (1, 2)))
    assert [s.stamp_s for s in claim.steps] == [1710148561.0, 1710148562.0]
    assert [s.number for s in claim.steps] == [1, 2]


def test_decimal_commas_are_read_where_they_are_in_no_doubt(claims_of: ClaimsOf) -> None:
    line = "[Step 1/9] | Loss: 1,2421875 | Duration: 66,07 | Throughput: 7.935,39 tokens/sec"
    (claim,) = claims_of("moai", line)
    (step,) = claim.steps
    assert (step.loss, step.duration_s, step.tokens_per_s) == (1.2421875, 66.07, 7935.39)


@pytest.mark.parametrize(
    "line",
    [
        "[Step 1/9] | Loss: 1.5 | Duration: 66.07 | Throughput: 79",
        "[Step 1/9] | Loss: 1.5 | Duration: 66.07 | Throughput: 7935.39 tok",
        "[Step 1/9] | Loss: one | Duration: 66.07 | Throughput: 7935.39 tokens/sec",
        "[Step 1/] | Loss: 1.5",
        "[Step 1/9]",
    ],
)
def test_a_line_that_is_cut_off_or_damaged_is_not_understood(
    line: str, understood: Callable[[moai.MoaiReader, str], list[bool]]
) -> None:
    reader = moai.MoaiReader()
    assert understood(reader, line) == [False]
    assert not reader.claims()


def test_a_line_without_the_rate_that_the_others_have_is_cut_off(
    understood: Callable[[moai.MoaiReader, str], list[bool]],
) -> None:
    whole = "[Step {}/9] | Loss: 1.5 | Duration: 2.00 | Throughput: 512.00 tokens/sec"
    text = "\n".join([whole.format(1), whole.format(2)[:22], whole.format(2)[:40]])
    assert understood(moai.MoaiReader(), text) == [True, False, False]


def test_a_loss_that_is_nan_stays_nan(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("moai", "[Step 1/9] | Loss: nan | Duration: 2.00 | Throughput: 512.00 tokens/sec")
    (step,) = claim.steps
    assert step.loss != step.loss
