"""What the Trainer of transformers counts: samples over the whole runtime, in old releases the planned ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark_importers import huggingface

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


@pytest.fixture
def state(printed: Printed, claims_of: ClaimsOf) -> Claim:
    (claim,) = claims_of("huggingface", printed("huggingface-trainer_state.json"))
    return claim


def test_samples_per_second_are_over_the_whole_runtime(state: Claim) -> None:
    assert (state.samples_per_s, state.train_s) == (62.403, 205.1187)
    # Planned: 400 steps of 32 sequences in 205.1187 s are 62.403 samples/s; 60 steps were done.
    assert (state.samples_per_s or 0) * (state.train_s or 0) == pytest.approx(400 * 32, rel=1e-4)
    assert (state.steps_total, state.steps_done) == (400, 60)
    assert "whether done or not" in state.meaning
    assert "train_runtime, which includes set-up" in state.meaning
    assert "train_steps_per_second is 1.95 (entry 8 of log_history)" in state.notes


def test_rates_in_the_history_are_all_tokens_since_the_start(state: Claim) -> None:
    steps = list(state.steps)
    assert state.scope == "job"
    assert [s.number for s in steps] == [10, 20, 30, 40, 50, 60]
    for step in steps:
        # train_runtime of the entry is the seconds since the start.
        assert (step.tokens or 0) / (step.stamp_s or 1) == pytest.approx(step.tokens_per_s, rel=1e-5)
    assert state.tokens_total == 60 * 32 * 1024
    # Whether padding is counted is the user's choice, which the file does not hold.
    assert state.counts is None
    assert state.origin["train_s"] == "\"'train_runtime': 205.1187\", entry 8 of log_history"
    assert state.origin["steps_done"] == "'\"global_step\": 60', outside log_history"


def test_a_batch_of_one_process_is_no_global_batch(state: Claim) -> None:
    assert (state.layout.micro_batch, state.layout.global_batch) == (4, None)


def test_a_results_file_holds_the_summary_alone(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface", printed("huggingface-train_results.json"))
    assert (claim.samples_per_s, claim.train_s, len(claim.steps)) == (19.538, 1842.5531, 0)


def test_a_resumed_state_keeps_the_last_summary_and_notes_the_first(claims_of: ClaimsOf) -> None:
    def at(step: int, seconds: float) -> dict[str, float]:
        return {"loss": 2.0, "step": step, "epoch": step / 40, "train_runtime": seconds, "learning_rate": 1e-5}

    def end(seconds: float) -> dict[str, float]:
        return {"train_runtime": seconds, "train_samples_per_second": 8.0, "step": 0}

    history = [at(10, 30.0), at(20, 61.0), end(62.0), at(30, 31.0), at(40, 60.0), end(60.5)]
    text = json.dumps({"global_step": 40, "max_steps": 40, "log_history": history})
    (claim,) = claims_of("huggingface", text)
    assert claim.train_s == 60.5
    assert [s.stamp_s for s in claim.steps] == [30.0, 61.0, None, None]
    assert any("an earlier start ended at entry 3: train_runtime 62.0" in note for note in claim.notes)
    assert any("begin again" in note for note in claim.notes)


def test_a_console_log_has_its_header_and_its_summary(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("huggingface-console.txt"))
    layout = claim.layout
    assert (layout.global_batch, layout.micro_batch, layout.gradient_accumulation) == (64, 4, 2)
    assert (claim.steps_total, claim.trainable_parameters) == (150, 41943040)
    assert (claim.samples_per_s, claim.train_s) == (24.539, 391.2204)
    # include_tokens_per_second: of one process, by the length of its batches.
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.counts) == (None, 3210.55, "slots")
    losses = [s for s in claim.steps if s.loss is not None]
    assert (len(losses), losses[-1].epoch) == (10, 1.0)


def test_the_trainings_progress_bar_is_a_clock_and_the_evaluations_is_not(
    printed: Printed, claims_of: ClaimsOf
) -> None:
    (claim,) = claims_of("huggingface-log", printed("huggingface-console.txt"))
    ticks = [(s.number, s.stamp_s) for s in claim.steps if s.number is not None]
    assert ticks[0] == (15.0, 46.0)
    assert ticks[-1] == (150.0, 384.0)
    assert (10.0, 3.0) not in ticks


def test_without_a_header_the_bar_at_the_first_loss_is_the_trainings(claims_of: ClaimsOf) -> None:
    text = "\n".join(
        [
            "Map: 100%|██████████| 900/900 [00:02<00:00, 410.11 examples/s]",
            "100%|██████████| 500/500 [00:07<00:00, 70.0it/s]",
            "  0%|          | 0/20 [00:00<?, ?it/s]",
            " 10%|█         | 2/20 [00:11<01:40,  5.5s/it]{'loss': 2.0, 'learning_rate': 1e-05, 'epoch': 0.1}",
            " 20%|██        | 4/20 [00:16<01:10,  4.1s/it]",
            "{'loss': 1.9, 'learning_rate': 1e-05, 'epoch': 0.2}",
            " 30%|███       | 6/20 [00:21<01:00,  3.5s/it]",
        ]
    )
    (claim,) = claims_of("huggingface-log", text)
    assert [(s.number, s.stamp_s) for s in claim.steps if s.number] == [(4.0, 16.0), (6.0, 21.0)]
    assert claim.steps_total == 20


def test_a_second_training_has_a_bar_of_its_own(claims_of: ClaimsOf) -> None:
    losses = "{'loss': 2.0, 'learning_rate': 1e-05, 'epoch': 0.5}"
    end = "{'train_runtime': 9.0, 'train_samples_per_second': 8.0, 'train_loss': 1.0, 'epoch': 1.0}"
    bars = [f" 50%|█████     | {n}/{n + 2} [00:0{n}<00:01,  1.0s/it]" for n in (2, 4)]
    text = "\n".join([*(f"{bar}\n{losses}\n{bar.replace('50', '75').replace('| ', '| 1')}\n{end}" for bar in bars)])
    first, second = claims_of("huggingface-log", text)
    assert (first.steps_total, second.steps_total) == (4, 6)


def test_numbers_of_transformers_5_are_in_quotes(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("huggingface-trl.txt"))
    assert [s.tokens for s in claim.steps] == [81231 * n for n in range(1, 7)]
    assert (claim.samples_per_s, claim.train_s) == (9.766, 98.31)


def test_axolotls_rate_is_trained_tokens_of_one_device(claims_of: ClaimsOf) -> None:
    line = "{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1, 'tokens_per_second_per_gpu': 1200.5}"
    (claim,) = claims_of("huggingface-log", line)
    assert (claim.scope, claim.counts) == ("device", "trained")
    assert [s.tokens_per_s for s in claim.steps] == [1200.5]


def test_two_trainings_in_one_log_are_two_claims(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("huggingface-trl.txt")
    assert [len(claim.steps) for claim in claims_of("huggingface-log", text + text)] == [6, 6]


def test_a_summary_alone_is_not_the_next_trainings(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("huggingface-trl.txt")
    summary = text.splitlines()[-1].replace("98.31", "50.5")
    first, second = claims_of("huggingface-log", f"{summary}\n{text}")
    assert (first.train_s, len(first.steps)) == (50.5, 0)
    assert (second.train_s, len(second.steps)) == (98.31, 6)


def test_a_longest_length_is_no_length(claims_of: ClaimsOf) -> None:
    text = "python train.py --max_seq_length 4096 --bf16 True\n{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1}"
    (claim,) = claims_of("huggingface-log", text)
    assert (claim.sequence, claim.precision) == (None, "bf16")
    assert claim.notes == ("--max_seq_length 4096 is the maximum sequence length, not the actual one (line 1)",)


@pytest.mark.parametrize(
    "line", ["{'loss': 1.2, 'epoch': 0.", "{'loss': 'low', 'epoch': 0.1}", "{'loss': 1,2, 'epoch': 1}"]
)
def test_a_dictionary_that_is_cut_off_or_odd_is_not_understood(
    line: str, understood: Callable[[huggingface.HuggingFaceReader, str], list[bool]]
) -> None:
    reader = huggingface.HuggingFaceReader()
    assert understood(reader, line) == [False]
    assert not reader.claims()


def test_a_truncated_document_is_refused_with_its_place(printed: Printed) -> None:
    text = printed("huggingface-trainer_state.json")
    assert huggingface.is_document(text)
    with pytest.raises(BadData, match="a file is cut off") as caught:
        huggingface.document("here", "a file", text[:900])
    assert caught.value.why.startswith("line 3")
    with pytest.raises(BadData, match="no history of steps"):
        huggingface.document("here", "a file", '{"global_step": 5, "max_steps": 9}')


@pytest.mark.parametrize("seconds", [4, 100])
def test_tokens_counted_in_lines_have_the_clock_of_the_bar_before_them(claims_of: ClaimsOf, seconds: int) -> None:
    lines = []
    for n in range(1, 8):
        at = n * seconds
        lines.append(f" {n}%|#         | {n * 10}/1000 [{at // 60:02d}:{at % 60:02d}<1:00:00,  9.99s/it]")
        lines.append(f"{{'loss': {3 - n / 10}, 'learning_rate': 1e-05, 'num_tokens': {n * 5e5}, 'epoch': {n / 100}}}")
    (claim,) = claims_of("huggingface-log", "\n".join(lines))
    counted = [(step.tokens, step.stamp_s) for step in claim.steps if step.tokens is not None]
    assert counted == [(n * 5e5, n * seconds) for n in range(1, 8)]
