"""Any program's lines: a rate by its unit, and nothing that could be something else."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.generic_log import GenericLogReader

_FIXTURE = Path(__file__).parents[2] / "fixtures/importers/anything.txt"


def _claim(text: str) -> Claim | None:
    read = GenericLogReader()
    for number, line in enumerate(text.splitlines(), 1):
        read.read(LogLine(number, line))
    return next(iter(read.claims()), None)


def test_rates_are_found_by_their_name_with_what_stands_beside_them() -> None:
    claim = _claim(_FIXTURE.read_text())
    assert claim is not None
    steps = list(claim.steps)
    assert [s.number for s in steps] == [1, 2, 3, 4, 5, 6]
    # The rate that a line prints per GPU is another name's, and shows that this one is of the job.
    assert [s.tokens_per_s for s in steps] == [8903.4, 40746.1, 39900.0, 40112.5, 39013.2, 40011.0]
    assert (claim.rate_name, claim.scope) == ("tok/s", "job")
    assert [(f.name, f.value, f.scope) for f in claim.figures] == [("tokens/s/gpu", 5001.4, "device")]
    assert [s.duration_s for s in steps[:3]] == [1.8402, 0.4021, 0.41]
    assert [s.loss for s in steps[:5]] == [3.21, 3.12, 3.05, 2.99, 2.91]
    assert steps[3].tokens == 65536
    assert (claim.padding_fraction, claim.steps_total) == (0.375, 40.0)
    assert (claim.layout.global_batch, claim.sequence) == (16, 1024)
    assert claim.counts is None


def test_a_rate_per_device_is_said_to_be_one() -> None:
    claim = _claim("step 1 tokens/s/gpu: 812.5")
    assert claim is not None
    assert claim.scope == "device"


@pytest.mark.parametrize(
    "line",
    [
        "generated 512 tokens in 3 s",
        "vocab tokens: 32000",
        "https://example.org/tokens/sec/12",
        "step 5 loss 2.3",
        "loaded 1.2M tokens",
        "max tokens per second unknown",
        "tokens/s: fast",
    ],
)
def test_what_is_no_rate_is_not_read(line: str) -> None:
    assert _claim(line) is None


def test_two_rates_in_one_log_share_no_median() -> None:
    lines = []
    for step in range(1, 8):
        lines += [
            f"[batch={step}/100]:",
            f"  loss/train/total: {3 - step / 10}",
            "  throughput/device/tokens_per_sec: 6553.6",
            "  throughput/tokens_per_sec: 52428.8",
            "  throughput/device/mfu: 0.2755",
        ]
    claim = _claim("\n".join(lines))
    assert claim is not None
    assert [s.tokens_per_s for s in claim.steps] == [52428.8] * 7
    assert [s.number for s in claim.steps] == list(range(1, 8))
    assert {s.mfu for s in claim.steps} == {0.2755}
    # A name without a scope beside the same rate per device is that of the job.
    assert (claim.scope, claim.rate_name) == ("job", "throughput/tokens_per_sec")
    (device,) = claim.figures
    assert (device.value, device.scope, device.lines) == (6553.6, "device", 7)


def test_lines_with_a_step_or_a_loss_are_the_training_s_and_others_stand_apart() -> None:
    lines = []
    for step in range(1, 6):
        lines += [
            "INFO engine: Avg prompt throughput: 812.0 tokens/s, Avg generation throughput: 9000.5 tokens/s",
            f"step: {step} loss: {2 - step / 10} tokens/s: {4000 + step}",
        ]
    claim = _claim("\n".join([*lines, "the whole run reached 4500 tok/s"]))
    assert claim is not None
    assert [s.tokens_per_s for s in claim.steps] == [4001, 4002, 4003, 4004, 4005]
    apart = {f.name: (f.value, f.is_training) for f in claim.figures if not f.is_training}
    assert apart == {"Avg prompt throughput": (812.0, False), "Avg generation throughput": (9000.5, False)}
    assert [f.value for f in claim.figures if f.is_training] == [4500.0]


def test_what_only_the_whole_log_shows() -> None:
    claim = _claim("\n".join(f"step {n} loss 2.5 time {10.0 * n:.1f} tokens {4096 * n} mfu 41.5" for n in range(1, 9)))
    assert claim is not None
    # A time that rises with every line is a clock, tokens that rise a counter, an MFU above 2 a percentage.
    assert [(s.stamp_s, s.duration_s, s.tokens, s.mfu) for s in claim.steps][:2] == [
        (10.0, None, 4096.0, 0.415), (20.0, None, 8192.0, 0.415),
    ]  # fmt: skip
    claim = _claim("\n".join(f"step {n} loss 2.5 time {0.5 + n % 2 / 10:.1f} tokens 4096 mfu 0.4" for n in range(1, 9)))
    assert claim is not None
    assert [(s.stamp_s, s.duration_s, s.step_tokens, s.mfu) for s in claim.steps][:2] == [
        (None, 0.6, 4096.0, 0.4), (None, 0.5, 4096.0, 0.4),
    ]  # fmt: skip


def test_two_readings_of_a_line_are_refused_and_said() -> None:
    claim = _claim("\n".join(["step 1 loss 2.5 dt 3.1", "epoch 1 tok/s 4096 loss 2.3 lr", "step 2 loss 2.4 dt 3.2"]))
    assert claim is not None
    assert [s.tokens_per_s for s in claim.steps] == [None, None]
    assert any("could belong to two names" in note for note in claim.notes)


def test_columns_of_figures_are_read_under_their_names() -> None:
    rows = "\n".join(f"{n:5d}   {3 - n / 10:.2f}    {4096 + n}    41.5%" for n in range(1, 5))
    claim = _claim(f"starting\n step   loss   tok/s/GPU   mfu\n{rows}\nsaved 3 files\n")
    assert claim is not None
    assert [(s.number, s.loss, s.tokens_per_s, s.mfu) for s in claim.steps][:2] == [
        (1.0, 2.9, 4097.0, 0.415), (2.0, 2.8, 4098.0, 0.415),
    ]  # fmt: skip
    assert (claim.scope, len(claim.steps)) == ("device", 4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # A level without a colon, a rank before the step, logfmt, cells in turn, a product below the bar.
        ("2025-05-01 10:00:0{n},123 INFO train step {n} loss 2.5 tok/s 4096", (1.0, 4096.0, "unknown")),
        ("rank 0 step {n} loss 2.5 tok/s 4096", (1.0, 4096.0, "unknown")),
        ('ts=2025-04-03T10:00:0{n}.000Z level=info msg="train step" step={n} loss=2.5 tps=4096',
         (1.0, 4096.0, "unknown")),
        ("{n}\tloss\t2.5\ttok/s\t4096", (None, 4096.0, "unknown")),
        ("step {n} loss: 2.5 speed: 4096 tok/(gpu*s)", (1.0, 4096.0, "device")),
        ("step {n} loss=2.5 tok/s/dev=4096", (1.0, 4096.0, "device")),
        # A comma before decimals makes a point one of thousands.
        ("step={n} loss=2,5 tok/s=4.096", (1.0, 4096.0, "unknown")),
        # An extreme, or what one host makes, is not the rate.
        ("step {n} loss 2.5 train_tok_per_s 4096 longest_sample_tokens_per_sec 80", (1.0, 4096.0, "unknown")),
        ("step {n} loss 2.5 tokens/s/node 9000, tokens/s 4096", (1.0, 4096.0, "unknown")),
    ],
)  # fmt: skip
def test_orders_and_marks_of_everyday_lines(line: str, expected: tuple[float | None, float, str]) -> None:
    claim = _claim("\n".join(line.format(n=n) for n in range(1, 9)))
    assert claim is not None
    first = next(iter(claim.steps))
    assert (first.number, first.tokens_per_s, claim.scope) == expected


@pytest.mark.parametrize(
    "line",
    ["step {n} loss 2.5 tok/s 4 096", "step {n}; loss 2.5; 1821/1769 tok/s", "step {n} loss 2.5 tokens/s/node 9"],
)
def test_what_may_be_one_number_or_two_is_not_read(line: str) -> None:
    claim = _claim("\n".join(line.format(n=n) for n in range(1, 9)))
    assert claim is None or all(step.tokens_per_s is None for step in claim.steps)


@pytest.mark.parametrize(
    "line",
    [
        '{{"time": "2025-04-03T10:00:0{n}Z", "step": {n}, "metrics": {{"loss": 2.5, "tokens_per_sec": 4096}}}}',
        '{{"step": {n}, "loss": 2.5, "tokens_per_sec": 4096, "timestamp": 174367440{n}.5}}',
        "step={n} loss=2.5 tps=4096 ts=174367440{n}000",
        "step {n} loss 2.5 tok/s 4096 elapsed 0m {n}s",
    ],
)
def test_a_clock_may_stand_anywhere_in_a_line(line: str) -> None:
    claim = _claim("\n".join(line.format(n=n) for n in range(1, 9)))
    assert claim is not None
    stamps = [step.stamp_s for step in claim.steps]
    assert None not in stamps
    assert [b - a for a, b in itertools.pairwise(stamps) if a and b] == [1.0] * 7
    assert all(step.duration_s is None for step in claim.steps)


def test_steps_and_a_clock_alone_are_a_log() -> None:
    claim = _claim("\n".join(f"step:{n}/900 train_time:{142 * n}ms step_avg:142.{n}0ms" for n in range(1, 9)))
    assert claim is not None
    assert [step.duration_s for step in claim.steps][:2] == [0.1421, 0.1422]


def test_an_interval_is_of_the_steps_since_the_line_before() -> None:
    claim = _claim("\n".join(f"step {10 * n} | loss 2.{n} | interval 20.{n} s | 32604 tokens/s" for n in range(1, 6)))
    assert claim is not None
    assert [(s.duration_s, s.duration_steps) for s in claim.steps][:3] == [(None, None), (20.2, 10.0), (20.3, 10.0)]


@pytest.mark.parametrize("words", ["Generating: 128 tokens in 2.1 s", "decoding 16 prompts", "Inference speed"])
def test_a_line_about_generation_is_no_training(words: str) -> None:
    claim = _claim(f"{words} (61.0 tok/s)\n" * 3)
    assert claim is None or not any(step.tokens_per_s for step in claim.steps)
    # Beside a training it is kept apart.
    claim = _claim("".join(f"step {n} loss {3 - n / 9:.2f} tok/s 4096\n{words} (61.0 tok/s)\n" for n in range(1, 6)))
    assert claim is not None
    assert {step.tokens_per_s for step in claim.steps} == {4096.0}


def test_the_time_of_a_micro_batch_is_a_part_of_its_step() -> None:
    reader = GenericLogReader()
    for step in range(1, 13):
        reader.read(LogLine(step, f"iter {4 * step} step {step} loss {3 - step / 9:.3f} iter time 150.{step} ms"))
    (claim,) = reader.claims()
    assert {(s.number, s.duration_steps) for s in claim.steps} == {(float(n), 0.25) for n in range(1, 13)}


@pytest.mark.parametrize(
    ("line", "scope"),
    [
        ("第 {n} 步 | 损失 {loss} | 吞吐量: {rate} token/s", "unknown"),
        ("步数: {n}, 损失: {loss}, 单卡吞吐: {rate} tokens/s", "device"),
        ("step {n} loss {loss} 每秒 {rate} 个 token", "unknown"),
        ("step {n} loss {loss} 每卡每秒 {rate} tokens", "device"),
        ("스텝 {n} 손실 {loss} 초당 {rate} 토큰", "unknown"),
        ("step {n} loss {loss} GPU당 초당 {rate} 토큰", "device"),
        ("ステップ {n} 損失 {loss} スループット {rate} トークン/秒", "unknown"),
        ("ステップ {n} 損失 {loss} 毎秒 {rate} トークン", "unknown"),
    ],
)
def test_lines_in_chinese_korean_and_japanese(line: str, scope: str) -> None:
    reader = GenericLogReader()
    for n in range(1, 9):
        reader.read(LogLine(n, line.format(n=n, loss=3 - n / 10, rate=4096 + n)))
    (claim,) = reader.claims()
    assert [(s.number, s.tokens_per_s) for s in claim.steps] == [(n, 4096 + n) for n in range(1, 9)]
    assert claim.scope == scope
