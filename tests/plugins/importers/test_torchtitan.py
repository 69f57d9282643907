"""torchtitan's tps: slots per second of one device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from tunemark.plugin.claims import Claim, LoggedStep
from tunemark_importers import torchtitan

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


@pytest.fixture
def claim(printed: Printed, claims_of: ClaimsOf) -> Claim:
    (found,) = claims_of("torchtitan", printed("torchtitan-2025.txt"))
    return found


def test_tps_is_of_one_device_with_padding(claim: Claim) -> None:
    assert (claim.scope, claim.counts) == ("device", "slots")
    steps = list(claim.steps)
    # 16 sequences of 8192 over 16 devices: 8192 slots a device and step, by the stamps of neighbouring lines.
    for a, b in itertools.pairwise(steps[1:4]):
        slots = (b.tokens_per_s or 0) * ((b.stamp_s or 0) - (a.stamp_s or 0)) / ((b.number or 0) - (a.number or 0))
        assert slots == pytest.approx(8192, rel=1e-3)


def test_a_line_holds_utilization_as_a_fraction(claim: Claim) -> None:
    first, *_, last = claim.steps
    assert first == LoggedStep(
        11, number=1.0, tokens_per_s=902.0, tflops=52.05, mfu=0.0526, loss=10.126, stamp_s=1751371215.782
    )
    assert (last.number, last.mfu) == (50.0, 0.3696)
    assert "its mfu is relative to a peak of 9.890e+14 FLOP/s (line 7)" in claim.notes


def test_validation_is_no_step(claim: Claim) -> None:
    assert [s.number for s in claim.steps] == [1, 10, 20, 30, 40, 50]


def test_the_mesh_is_the_layout_and_the_count(claim: Claim) -> None:
    layout = claim.layout
    assert (layout.dp, layout.fsdp, layout.tp, layout.pp, layout.cp) == (8, 8, 2, 1, 1)
    assert claim.count == 16
    assert (layout.micro_batch, layout.global_batch, claim.sequence) == (2, 16, 8192)
    assert (claim.device, claim.parameters) == ("NVIDIA H100 80GB HBM3", 8030261248)
    assert layout.checkpointing == "selective"
    assert claim.memory_bytes == 47.28 * 2**30


def test_words_per_second_of_2024_are_the_same_quantity(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtitan", printed("torchtitan-2024.txt"))
    assert (claim.scope, claim.layout.dp, claim.layout.tp, claim.count) == ("device", 4, 2, 8)
    assert [s.tokens_per_s for s in claim.steps] == [1031.0, 3070.0, 3010.0]


def test_quantized_training_prints_no_utilization(claims_of: ClaimsOf) -> None:
    line = "step:  5  loss:  7.1  grad_norm:  1.0  memory: 10.00GiB(9.0%)  tps: 7,001  tflops: 401.20  mfu: N/A"
    (claim,) = claims_of("torchtitan", f"Float8 training active with recipe rowwise\n{line}")
    assert claim.precision == "fp8"
    assert [(s.tflops, s.mfu) for s in claim.steps] == [(401.2, None)]


def test_a_line_that_is_cut_off_is_not_understood(
    printed: Printed, understood: Callable[[torchtitan.TorchtitanReader, str], list[bool]]
) -> None:
    reader = torchtitan.TorchtitanReader()
    whole = (
        "step: 50  loss:  3.98867  grad_norm:  0.9  memory: 47.28GiB(59.77%)  tps: 6,335  tflops: 365.53  mfu: 36.96%"
    )
    cut = [whole[:end] for end in range(len(whole) - 1, 0, -1)]
    assert understood(reader, "\n".join([whole, *cut])) == [True] + [False] * len(cut)
