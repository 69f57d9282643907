"""torchtune's tokens per second: trained labels of one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tunemark.plugin.claims import Claim
from tunemark_importers import torchtune

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_the_rate_is_trained_tokens_of_one_device(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtune", printed("torchtune-stdout.txt"))
    assert (claim.scope, claim.counts) == ("device", "trained")
    assert "neither padding nor a masked prompt" in claim.meaning
    steps = list(claim.steps)
    assert (len(steps), steps[0].tokens_per_s, steps[0].loss) == (8, 211.03, 1.475)
    # The first step is a line as all others.
    assert steps[0].number == 1


def test_the_printed_config_gives_the_layout(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtune", printed("torchtune-stdout.txt"))
    layout = claim.layout
    assert (layout.micro_batch, layout.gradient_accumulation, layout.tp) == (2, 8, 2)
    assert (claim.model, claim.method, claim.precision) == ("llama3_1_8b", "full", "bf16")
    assert (claim.sequence, layout.checkpointing) == (4096, "full")
    assert claim.origin["sequence"] == "'packed, max_seq_len: 4096', line 26"
    assert claim.memory_bytes == pytest.approx(27.48 * 2**30)


def test_without_packing_the_longest_sequence_is_no_length(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("torchtune-stdout.txt").replace("packed: true", "packed: false")
    assert claims_of("torchtune", text)[0].sequence is None


def test_a_lora_recipe_on_one_device(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("torchtune-stdout.txt").replace("FullFinetuneRecipeDistributed", "LoRAFinetuneRecipeSingleDevice")
    (claim,) = claims_of("torchtune", text.replace("llama3_1.llama3_1_8b", "llama3_1.lora_llama3_1_8b"))
    assert (claim.method, claim.count, claim.model) == ("lora", 1, "llama3_1_8b")


def test_json_lines_say_the_same(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtune", printed("torchtune-disk.jsonl"))
    assert [s.number for s in claim.steps] == [1, 2, 3, 4, 5]
    assert next(iter(claim.steps)).tokens_per_s == 402.5
    assert claim.memory_bytes == 13.25 * 2**30


def test_the_older_name_counts_all_slots(claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("torchtune", "Step 4 | loss:1.5 lr:2e-05 tokens_per_second:2000.5 ")
    assert (claim.scope, claim.counts) == ("device", "slots")


def test_a_last_value_without_its_blank_is_cut_off(
    understood: Callable[[torchtune.TorchtuneReader, str], list[bool]],
) -> None:
    reader = torchtune.TorchtuneReader()
    line = "Step {} | loss:1.5 lr:2e-05 tokens_per_second_per_gpu:{}"
    text = f"{line.format(1, '1234.5 ')}\n{line.format(2, '12')}"
    assert understood(reader, text) == [True, False]


@pytest.mark.parametrize(
    "line", ["Step 1 | loss:low lr:2e-05 ", "Step 1 | ", '{"step": 1, "loss": 1.5', "Step one | loss:1 lr:1 "]
)
def test_what_is_damaged_is_not_understood(
    line: str, understood: Callable[[torchtune.TorchtuneReader, str], list[bool]]
) -> None:
    assert understood(torchtune.TorchtuneReader(), line) == [False]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "loss": 1.2, "lr": 0.0003}',
        '{"step": 1, "loss": 1.2, "lr": 0.0003, "tokens_per_sec": 4096}',
        '{"step": 1, "loss": 1.2, "tokens_per_second_per_gpu": 402.5, "temperature": 61}',
    ],
)
def test_any_json_with_a_step_and_a_loss_is_not_torchtunes(line: str, claims_of: ClaimsOf) -> None:
    assert not claims_of("torchtune", line)
