"""Logs of the frameworks in their documented formats: what a step says, and that no other line is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tunemark.plugin.claims import Claim
from tunemark.plugin.log_formats import FormatDescription
from tunemark_importers.framework_formats import FORMATS

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]

# By fixture: the format, how many steps, and of the second step (or the only one) what its line says. The figures are
# those of the fixture; a duration is in seconds, a share a fraction, a rate of operations in TFLOP/s.
STEPS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "nanogpt.txt": (
        "nanogpt", 6,
        {"number": 10.0, "duration_s": 0.25148, "mfu": 0.3815, "loss": 10.19, "step_tokens": 491520.0},
    ),
    "nanochat.txt": (
        "nanochat", 7,
        {"number": 1.0, "duration_s": 0.48858, "tokens_per_s": 1073085.0, "mfu": 0.4829, "step_tokens": 524288.0},
    ),
    "llmc.txt": ("llm.c", 6, {"number": 2.0, "duration_s": 2.81277, "tokens_per_s": 186397.0, "mfu": 0.544}),
    "maxtext.txt": ("maxtext", 6, {"number": 1.0, "duration_s": 3.423, "tokens_per_s": 4786.47, "tflops": 210.74}),
    "fms-fsdp.txt": (
        "fms-fsdp", 5, {"number": 100.0, "duration_s": 2.746, "tokens_per_s": 11933.0, "tokens": 104857600.0},
    ),
    "composer.txt": (
        "composer", 5,
        {"number": 20.0, "tokens_per_s": 131386.5728, "samples_per_s": 32.0768, "tokens": 19922944.0, "mfu": 0.5823,
         "tflops": 181.66},
    ),
    "olmo-core.txt": (
        "olmo-core", 5, {"number": 20.0, "tokens_per_s": 15594.0, "tokens": 20971520.0, "mfu": 0.4127, "loss": 3.771},
    ),
    "nanotron.txt": (
        "nanotron", 6,
        {"number": 2.0, "duration_s": 2.33, "tokens_per_s": 450000.0, "tflops": 239.0, "step_tokens": 1050000.0},
    ),
    "gpt-neox.txt": (
        "gpt-neox", 6, {"number": 20.0, "duration_s": 7.245, "samples_per_s": 141.34, "tflops": 121.5},
    ),
    "nemo-1.txt": (
        "nemo-1", 6, {"number": 21.0, "duration_s": 17.22, "stamp_s": 75.0, "samples": 5376.0, "loss": 7.01},
    ),
    "nemo-2.txt": ("nemo-2", 6, {"number": 1.0, "duration_s": 4.131, "tokens_per_s": 7933.0, "samples": 512.0}),
    "nemo-automodel.txt": ("nemo-automodel", 6, {"number": 2.0, "tokens_per_s": 41215.94, "step_tokens": None}),
    "internevo.txt": ("internevo", 6, {"number": 1.0, "tokens_per_s": 3865.52, "tflops": 171.4013}),
    "deepspeed.txt": ("deepspeed", 5, {"number": 20.0, "samples_per_s": 71.83234}),
    "deepspeed-pipeline.txt": ("deepspeed-pipeline", 5, {"number": 20.0, "duration_s": 1.875, "samples_per_s": 68.312}),
    "deepspeed-chat.txt": ("deepspeed-chat", 5, {"duration_s": 0.48, "samples_per_s": 16.67, "tflops": 40.5}),
    "deepspeed-profile.txt": (
        "deepspeed-profile", 1, {"duration_s": 0.35361, "samples_per_s": 180.99, "tflops": 91.8},
    ),
    "xtuner.txt": ("xtuner", 6, {"number": 2.0, "duration_s": 6.932, "tokens_per_s": 4727.1}),
    "mmengine.txt": ("mmengine", 6, {"number": 20.0, "duration_s": 2.7051, "tokens_per_s": 757.1}),
    "paddlenlp.txt": (
        "paddlenlp", 6,
        {"number": 10.0, "duration_s": 5.918, "duration_steps": 5.0, "tokens_per_s": 6917.12, "tflops": 300.7},
    ),
    "arctic-training.txt": ("arctic-training", 6, {"number": 2.0, "duration_s": 2.83, "tflops": 279.8}),
    "verl-sft.txt": (
        "verl", 6,
        {"number": 2.0, "duration_s": 10.5, "tokens_per_s": 2395.53, "mfu": 0.322, "step_tokens": 201352.0},
    ),
    "verl-ppo.txt": (
        "verl", 5, {"number": 2.0, "duration_s": 153.2, "tokens_per_s": 760.19, "mfu": None, "step_tokens": 931584.0},
    ),
    "nemo-rl.txt": (
        "nemo-rl", 4,
        {"number": 2.0, "duration_s": 20.51, "tokens_per_s": 2425.81, "tflops": 122.1, "mfu": 0.1234, "stamp_s": None},
    ),
    "openrlhf.txt": ("openrlhf", 5, {"number": 8.0, "stamp_s": 18.0, "duration_s": None}),
    "llama-factory-trainer_log.jsonl": (
        "llama-factory-trainer-log", 6, {"number": 40.0, "tokens_per_s": 15592.67, "tokens": 1310720.0},
    ),
    # One step in eight micro-batches.
    "litgpt.txt": ("litgpt", 6, {"number": 2.0, "duration_s": 0.18182, "duration_steps": 0.125, "loss": 1.67}),
}  # fmt: skip


@pytest.mark.parametrize("fixture", STEPS)
def test_a_step_says_what_its_line_says(fixture: str, printed: Printed, claims_of: ClaimsOf) -> None:
    name, count, expected = STEPS[fixture]
    (claim,) = claims_of(name, printed(fixture))
    assert (claim.tool, len(claim.steps)) == (name, count)
    step = list(claim.steps)[min(1, count - 1)]
    assert {field: getattr(step, field) for field in expected} == expected


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_every_format_has_a_fixture_and_a_source(format: FormatDescription) -> None:
    assert format.name in {name for name, _, _ in STEPS.values()}
    assert format.sources
    assert format.meaning
    assert set(format.requires) <= {figure.name for figure in format.figures}


@pytest.mark.parametrize(
    ("fixture", "scope", "counts", "rate_name"),
    [
        ("composer.txt", "job", "slots", "throughput/tokens_per_sec"),
        ("maxtext.txt", "device", "slots", "Tokens/s/device"),
        ("xtuner.txt", "device", "slots", "tgs"),
        ("nemo-automodel.txt", "job", "content", "tps"),
        ("verl-sft.txt", "device", "content", "perf/throughput"),
        ("nanochat.txt", "job", "slots", "tok/sec"),
    ],
)
def test_the_claimed_rate_has_its_scope_and_its_tokens(
    fixture: str, scope: str, counts: str, rate_name: str, printed: Printed, claims_of: ClaimsOf
) -> None:
    (claim,) = claims_of(STEPS[fixture][0], printed(fixture))
    assert (claim.scope, claim.counts, claim.rate_name) == (scope, counts, rate_name)


def test_two_rates_of_one_block_stand_apart(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("composer", printed("composer.txt"))
    named = {figure.name: (figure.quantity, figure.scope) for figure in claim.figures}
    assert named["throughput/device/tokens_per_sec"] == ("tokens_per_s", "device")
    assert "throughput/tokens_per_sec" not in named


def test_generation_is_no_training(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("nemo-rl", printed("nemo-rl.txt"))
    others = [figure for figure in claim.figures if figure.quantity == "tokens_per_s"]
    assert [figure.is_training for figure in others] == [False, False]
    (claim,) = claims_of("verl", printed("verl-ppo.txt"))
    assert [(figure.name, figure.is_training) for figure in claim.figures] == [("perf/mfu/actor", False)]


def test_litgpt_counts_its_padding(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("litgpt", printed("litgpt.txt"))
    assert (claim.tokens_per_s, claim.counts, claim.train_s) == (4120.53, "slots", 198.13)
    # 612,300 of 816,400 slots hold content: a quarter is padding.
    assert claim.padding_fraction == pytest.approx(0.25)


def test_facts_of_a_header_and_of_a_line(printed: Printed, claims_of: ClaimsOf) -> None:
    (nanochat,) = claims_of("nanochat", printed("nanochat.txt"))
    assert (nanochat.layout.gradient_accumulation, nanochat.steps_total) == (1, 21400.0)
    (chat,) = claims_of("deepspeed-chat", printed("deepspeed-chat.txt"))
    assert (chat.layout.global_batch, chat.sequence, chat.parameters) == (8, 512, 1.315e9)
    (profile,) = claims_of("deepspeed-profile", printed("deepspeed-profile.txt"))
    assert (profile.count, profile.layout.micro_batch) == (16, 4)
    (nemo,) = claims_of("nemo-2", printed("nemo-2.txt"))
    assert (nemo.layout.global_batch, nemo.steps_total) == (256, 9999.0)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        # Cut off within a figure's unit, before a required figure, or of another unit.
        ("nanochat", "step 00003/21400 (0.01%) | loss: 9.1 | lrm: 1.00 | dt: 489.3ms"),
        ("nanochat", "step 00003/21400 (0.01%) | loss: 9.1 | lrm: 1.00 | dt: 489.3us | tok/sec: 1,071,000"),
        ("maxtext", "completed step: 3, seconds: 3.4, TFLOP/s/device: 211.3"),
        ("maxtext", "completed step: 3, seconds: 3.4, TFLOP/s/device: 211.3, Tokens/s/device: 48o1"),
        ("nemo-2", "Training epoch 0, iteration 3/9999 | lr: 1.5e-06 | global_batch_size: 256"),
        ("xtuner", "Epoch 1 Step 3/900 loss: 1.1 lr: 1e-5 time: 4.00"),
        ("deepspeed", "epoch=0/micro_step=20/global_step=10, CurrSamplesPerSec=71.1"),
        ("verl", "{'step': 3, 'perf/throughput': 2391.1}"),
    ],
)
def test_a_line_without_its_figures_is_nobodys(name: str, line: str, claims_of: ClaimsOf) -> None:
    assert not claims_of(name, line)


def test_what_is_not_known_yet_is_not_read(claims_of: ClaimsOf) -> None:
    # nanoGPT prints -100 % until it knows its utilization.
    (claim,) = claims_of("nanogpt", "iter 0: loss 10.9876, time 9210.33ms, mfu -100.00%\n")
    assert next(iter(claim.steps)).mfu is None


def test_a_fork_that_prints_a_rate_of_its_own_is_left_to_whoever_reads_names(claims_of: ClaimsOf) -> None:
    lines = "\n".join(f"iter {n}: loss 2.{n}, time 120.5{n}ms, mfu 31.2%, 40{n}6 tok/s" for n in range(1, 6))
    assert not claims_of("nanogpt", lines)
    (claim,) = claims_of("anything", lines)
    assert [s.tokens_per_s for s in claim.steps] == [4016, 4026, 4036, 4046, 4056]


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        (
            "llama-factory-trainer-log",
            '{"current_steps": 10, "total_steps": 60, "loss": 1.5, "eval_loss": null, "learning_rate": 9e-05, '
            '"epoch": 0.1, "percentage": 16.67, "elapsed_time": "0:00:41", "remaining_time": "0:03:25", '
            '"throughput": "1598.44", "total_tokens": 65536}',
            {"number": 10, "tokens_per_s": 1598.44, "stamp_s": 41.0},
        ),
        (
            "llm.c",
            "step    7/18865 | train loss 7.577 | lr 2.8e-05 | 1201.12 ms | 45.2% A100 fp16 MFU | 436589 tok/s",
            {"number": 7, "tokens_per_s": 436589, "mfu": 0.452},
        ),
        (
            "internevo",
            "2024-03-27 17:03:42,047 INFO training_internlm.py:599 in record_current_batch_training_metrics -- "
            "tflops=180.5 step=19 loss=0.5 tgs (tokens/gpu/second)=3345.72 tgs/last_tgs_1=3345.74 lr=1e-05 "
            "grad_norm={'0_default': 0.019} micro_num=4 num_consumed_tokens=10485760",
            {"number": 19, "tokens_per_s": 3345.72, "tflops": 180.5, "tokens": 10485760},
        ),
        (
            "deepspeed",
            "[2022-11-02 10:11:12,131] [INFO] [timer.py:197:stop] 0/120, RunningAvgSamplesPerSec=30.5, "
            "CurrSamplesPerSec=31.5, MemAllocated=7.79GB, MaxMemAllocated=10.55GB",
            {"number": 120, "samples_per_s": 30.5},
        ),
        (
            "nanochat",
            "step 00010/21400 (0.05%) | loss: 7.5 | grad norm: 0.51 | lrm: 1.00 | dt: 1000.5ms | tok/sec: 524,025 | "
            "bf16_mfu: 50.1 | epoch: 1 | total time: 0.2m | eta: 100.0m",
            {"number": 10, "tokens_per_s": 524025, "mfu": 0.501},
        ),
    ],
)
def test_other_versions_of_a_line(name: str, line: str, expected: dict[str, Any], claims_of: ClaimsOf) -> None:
    (claim,) = claims_of(name, line)
    (step,) = claim.steps
    assert {field: getattr(step, field) for field in expected} == expected
