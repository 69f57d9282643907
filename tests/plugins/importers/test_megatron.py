"""Megatron's iteration lines: a mean time of an iteration, and TFLOP/s per GPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from tunemark.physics.parameters import count_parameters
from tunemark.plugin.claims import Claim, LoggedStep
from tunemark_importers import megatron

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


@pytest.fixture
def claim(printed: Printed, claims_of: ClaimsOf) -> Claim:
    (found,) = claims_of("megatron", printed("megatron-lm.txt"))
    return found


def test_a_line_is_the_mean_of_the_iterations_since_the_last(claim: Claim) -> None:
    first, second, *_ = claim.steps
    assert first == LoggedStep(
        34, number=10.0, duration_s=7.8042, duration_steps=1.0, tflops=196.0, loss=8.835, stamp_s=1732082478.042
    )
    # Ten iterations between two lines.
    between = ((second.stamp_s or 0) - (first.stamp_s or 0)) / 10
    assert between == pytest.approx(second.duration_s, rel=1e-4)
    assert "no tokens per second is printed" in claim.meaning
    assert all(s.tokens_per_s is None for s in claim.steps)


def test_tflops_are_of_one_device_and_the_batch_of_the_whole_job(claim: Claim) -> None:
    layout = claim.layout
    assert (claim.scope, claim.counts, layout.global_batch, claim.sequence) == ("job", "slots", 128, 4096)
    assert (claim.count, layout.dp, layout.tp, layout.pp, layout.cp) == (16, 4, 2, 2, 1)
    assert layout.checkpointing == "selective"
    # The larger of two ranks, in units of 2^20 bytes.
    assert claim.memory_bytes == 46802 * 2**20


def test_the_printed_arguments_make_the_model(claim: Claim) -> None:
    assert claim.architecture is not None
    # Mistral 7B has these dimensions: 7,241,732,096 parameters.
    assert count_parameters(claim.architecture).total == 7241732096
    assert claim.precision == "bf16"


@pytest.mark.parametrize(
    "change", [("num_experts .", "num_experts_ ."), ("swiglu ..", "swiglu_x ."), ("hidden_size ..", "hidden_size_ ."),
               ("...... None\n  num_layers", "...... 8\n  num_layers")],
)  # fmt: skip
def test_without_a_dimension_or_with_experts_there_is_no_model(
    printed: Printed, claims_of: ClaimsOf, change: tuple[str, str]
) -> None:
    text = printed("megatron-lm.txt")
    assert change[0] in text
    expected = change[0].startswith("num_experts .")
    (found,) = claims_of("megatron", text.replace(*change))
    assert (found.architecture is not None) == expected


def test_bridges_two_lines_of_one_step_are_one_step(printed: Printed, claims_of: ClaimsOf) -> None:
    (found,) = claims_of("megatron", printed("megatron-bridge.txt"))
    steps = list(found.steps)
    assert [s.number for s in steps] == [1, 2, 3, 4, 5, 6]
    assert (steps[0].duration_s, steps[0].tflops) == (31.044, 180.4)
    assert (found.layout.global_batch, found.steps_total) == (256, 50)


def test_the_first_ranks_lines_alone_are_steps_without_a_number(printed: Printed, claims_of: ClaimsOf) -> None:
    text = "\n".join(line for line in printed("megatron-bridge.txt").splitlines() if "Step Time" in line)
    (found,) = claims_of("megatron", text)
    assert [(s.number, s.duration_steps) for s in found.steps] == [(None, 1.0)] * 6


def test_a_batch_that_grows_is_no_batch_of_the_whole(printed: Printed, claims_of: ClaimsOf) -> None:
    lines = printed("megatron-bridge.txt").splitlines()
    lines[-1] = lines[-1].replace("global batch size:   256", "global batch size:   512")
    (found,) = claims_of("megatron", "\n".join(lines))
    assert found.layout.global_batch is None
    assert "left unknown" in found.notes[0]


def test_relatives_print_tokens_per_gpu(claims_of: ClaimsOf) -> None:
    line = (
        " iteration       20/     100 | consumed samples:         5120 | consumed tokens:     10485760 | "
        "elapsed time per iteration (ms): 2000.0/2010.5 | learning rate: 1.0E-05 | global batch size:   256 | "
        "lm loss: 3.5E+00 | samples per second: 128.000 | tokens per gpu per second (tgs): 32768.5 | TFLOPs: 210.1 |"
    )
    (found,) = claims_of("megatron", line)
    (step,) = found.steps
    assert found.scope == "device"
    assert (step.tokens, step.samples_per_s, step.tokens_per_s) == (10485760, 128.0, 32768.5)
    assert (step.duration_s, step.tflops) == (2.0, 210.1)


def test_a_line_without_its_last_bar_is_cut_off(
    printed: Printed, understood: Callable[[megatron.MegatronReader, str], list[bool]]
) -> None:
    line = printed("megatron-lm.txt").splitlines()[-1]
    assert understood(megatron.MegatronReader(), line) == [True]
    assert understood(megatron.MegatronReader(), line[:-1]) == [False]
    assert understood(megatron.MegatronReader(), line.replace("(ms): 5133.3", "(ms): ?")) == [False]


def _mixture(printed: Printed, **arguments: str) -> str:
    """The log with the arguments of a mixture: 8 experts of 512, 2 of them for each token, unless others are given."""
    values = {"num_experts": "8", "moe_router_topk": "2", "moe_ffn_hidden_size": "512", **arguments}
    text = re.sub(r"  num_experts \.+ None\n", "", printed("megatron-lm.txt"))
    lines = "".join(f"  {name} {'.' * 40} {value}\n" for name, value in values.items())
    return re.sub(r"(-+ arguments -+\n)", lambda match: match[1] + lines, text, count=1)


def test_the_arguments_of_a_mixture_are_its_dimensions(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("megatron", _mixture(printed))
    architecture = claim.architecture
    assert architecture is not None
    assert (architecture.num_local_experts, architecture.num_experts_per_tok) == (8, 2)
    assert architecture.intermediate_size == 512


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("moe_shared_expert_intermediate_size", "1024"),
        ("moe_layer_freq", "([0]*1+[1]*26)"),
        ("multi_latent_attention", "True"),
    ],
)
def test_a_mixture_with_other_layers_is_left_unknown_and_said(
    name: str, value: str, printed: Printed, claims_of: ClaimsOf
) -> None:
    (claim,) = claims_of("megatron", _mixture(printed, **{name: value}))
    assert claim.architecture is None
    assert any(note.startswith(f"{name} is {value}") for note in claim.notes)


def test_more_experts_chosen_than_there_are_is_no_model(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("megatron", _mixture(printed, moe_router_topk="9"))
    assert claim.architecture is None
