"""Programs built on Hugging Face's Trainer: each is told by the names in its lines, and says what its figure counts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

import pytest

from tunemark.plugin.claims import Claim

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_llama_factorys_log_has_a_rate_a_counter_and_a_clock(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("llama-factory-trainer-log", printed("llama-factory-trainer_log.jsonl"))
    assert (claim.scope, claim.counts, claim.steps_total) == ("job", "slots", 240.0)
    # An evaluation's line has the step of a line before, and is none.
    assert [s.number for s in claim.steps] == [20, 40, 60, 80, 100, 120]
    step = list(claim.steps)[1]
    assert (step.tokens_per_s, step.tokens, step.stamp_s) == (15592.67, 1310720.0, 84.0)


def test_llama_factorys_console_has_the_trainers_header(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("llama-factory-running_log.txt"))
    assert (claim.tool, claim.scope, claim.counts) == ("llama-factory", "job", "slots")
    assert (claim.layout.global_batch, claim.layout.micro_batch) == (32, 2)
    stamps = [s.stamp_s or 0.0 for s in claim.steps]
    assert [b - a for a, b in itertools.pairwise(stamps)] == [60.0] * 4


def test_llama_factorys_results_are_of_one_device_without_padding(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface", printed("llama-factory-all_results.json"))
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.counts) == (None, 1403.17, "content")
    assert (claim.tokens_total, claim.train_s) == (13107200.0, 871.22)


@pytest.mark.parametrize("fixture", ["ms-swift.txt", "ms-swift-logging.jsonl"])
def test_ms_swift_has_steps_and_a_clock(fixture: str, printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed(fixture))
    assert (claim.tool, claim.steps_total) == ("ms-swift", 160.0)
    # Five steps in 66 seconds.
    assert [(s.number, s.stamp_s) for s in claim.steps][:2] == [(5.0, 66.0), (10.0, 132.0)]
    assert [(f.name, f.quantity) for f in claim.figures] == [("train_speed(iter/s)", "steps_per_s")]


def test_axolotls_summary_of_zero_is_no_rate(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("axolotl.txt"))
    assert (claim.tool, claim.scope, claim.counts) == ("axolotl", "device", "trained")
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device) == (None, None)
    # Of its two counters the one of the tokens that the rate counts.
    assert [s.tokens for s in claim.steps] == [41203.0 * n for n in range(1, 7)]


def test_unsloths_box_is_the_header(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("unsloth.txt"))
    assert (claim.tool, claim.device, claim.count) == ("unsloth", "Tesla T4", 1)
    layout = claim.layout
    assert (layout.micro_batch, layout.gradient_accumulation, layout.global_batch) == (4, 2, 8)
    assert (claim.trainable_parameters, claim.parameters) == (24313856, 3237063680)
    assert (claim.steps_done, claim.train_s, claim.samples_per_s) == (90, 412.61, 1.745)


def test_a_notebook_keeps_one_reading_of_its_clock(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("huggingface-log", printed("notebook.txt"))
    assert (claim.steps_done, claim.steps_total, claim.train_s) == (80, 900, 252.0)
    assert [s.number for s in claim.steps] == [10 * n for n in range(1, 9)]


@pytest.mark.parametrize(
    ("name", "scope"), [("tokens_per_sec", "unknown"), ("tokens_per_sec_per_gpu", "device"), ("tgs", "device")]
)
def test_a_rate_that_a_user_adds_is_read_by_its_name(name: str, scope: str, claims_of: ClaimsOf) -> None:
    lines = [f"{{'loss': 1.{n}, 'learning_rate': 1e-05, 'epoch': 0.{n}, '{name}': {4096 + n}}}" for n in range(1, 5)]
    (claim,) = claims_of("huggingface-log", "\n".join(lines))
    assert (claim.scope, claim.rate_name, claim.counts) == (scope, name, None)
    assert [s.tokens_per_s for s in claim.steps] == [4097, 4098, 4099, 4100]


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': 1.2, 'epoch': 0.1}",
        '{"loss": 1.2, "learning_rate": 1e-05, "epoch": 0.1, "tokens_per_sec": 4096}',
        "evaluated {'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1}",
        "{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1} and more",
        "Map:  10%|#         | 90/900 [00:01<00:09, 90.0 examples/s]",
    ],
)
def test_other_dictionaries_and_bars_are_not_the_trainers(line: str, claims_of: ClaimsOf) -> None:
    assert not claims_of("huggingface-log", line)


def test_a_summarys_rate_of_all_tokens_is_the_jobs(claims_of: ClaimsOf) -> None:
    # 24,036,672 tokens in 1,312.85 s are 18,308.8 tokens/s.
    summary = {"train_runtime": 1312.85, "train_samples_per_second": 22.85, "num_input_tokens_seen": 24036672}
    (claim,) = claims_of("huggingface", json.dumps({**summary, "train_tokens_per_second": 18308.8}))
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.counts) == (18308.8, None, None)
    (claim,) = claims_of("huggingface", json.dumps({**summary, "train_tokens_per_second": 2400.0}))
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.counts) == (None, 2400.0, "slots")
