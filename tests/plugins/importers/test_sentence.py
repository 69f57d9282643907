"""A claim in a sentence: what is written is what is read, in any order of its parts; two readings are asked about."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark_importers.sentence import document, is_document


def _claim(text: str) -> Claim:
    (claim,) = document("s", "the sentence", text)
    return claim


def test_a_sentence_is_understood_and_said_again() -> None:
    claim = _claim("Mistral 7B on 16 MI250: 390,000 tokens/s")
    assert (claim.model, claim.device, claim.count, claim.tokens_per_s) == ("mistral-7b", "MI250", 16, 390000.0)
    assert claim.notes[0].startswith(
        "understood as: model mistral-7b ('Mistral 7B'); chip MI250; 16 of them; 390,000 tokens/s"
    )
    assert "Not stated: the precision, the sequence length" in claim.notes[0]
    assert claim.origin["model"] == "'Mistral 7B' in the sentence"


def test_all_that_a_sentence_can_state() -> None:
    claim = _claim(
        "Llama 3.1 8B with LoRA on 4 nodes with 8 A100-80GB each, bf16, sequence length 4096, global batch 256: "
        "3.2k tok/s per GPU, 41% MFU, 2.5 s/step"
    )
    assert (claim.model, claim.device, claim.count, claim.precision) == ("llama-3.1-8b", "A100-80GB", 32, "bf16")
    assert (claim.sequence, claim.layout.global_batch, claim.method) == (4096, 256, "lora")
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.mfu, claim.step_time_s) == (
        None,
        3200.0,
        0.41,
        2.5,
    )


def test_both_rates_of_a_sentence() -> None:
    claim = _claim("Mixtral 8x7B on 64 H100 SXM: 1.2M tokens/s in total (18,750 per GPU)")
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.count) == (1.2e6, 18750.0, 64)


@pytest.mark.parametrize(
    ("text", "rate", "per_device", "count"),
    [
        ("2.1 million tokens per second with Llama 2 7B on 256 H100", 2.1e6, None, 256),
        ("Llama 2 7B: 3,000 tokens every second on one A100", 3000.0, None, 1),
        ("tokens/s: 390000; model: Mistral 7B; gpus: 16 MI250", 390000.0, None, 16),
        ("Llama 2 7B, 24k tokens/s per A100-40GB, 16 GPUs", None, 24000.0, 16),
        ("Llama 3.1 8B on 8 nodes x 8 H100, 76k tok/s per node", 608000.0, None, 64),
        ("Llama 3.1 8B: 620k tok/s on 64 H100 (8 nodes)", 620000.0, None, 64),
        ("Llama 3.1 8B: 8 nodes, 64 H100 in total, 620k tok/s", 620000.0, None, 64),
        ("Llama 2 7B with LoRA on A10G: 1.9k tok/s (one GPU, bf16)", 1900.0, None, 1),
        ("Llama 2 7B with LoRA on a 4090: 1.9k tok/s", 1900.0, None, 1),
        ("Llama 2 7B with LoRA on 8x3090, 1.9k tok/s", 1900.0, None, 8),
        ("Our 32 nodes x 8 H100 train Llama 3.1 8B at 3.2M tok/s", 3.2e6, None, 256),
    ],
)
def test_rates_in_plain_words(text: str, rate: float | None, per_device: float | None, count: int) -> None:
    assert is_document(text)
    claim = _claim(text)
    assert (claim.tokens_per_s, claim.tokens_per_s_per_device, claim.count) == (rate, per_device, count)


def test_a_step_time_a_whole_training_and_sequences_make_rates() -> None:
    claim = _claim("0.9 s/step with global batch 256 and sequence length 4096, Llama 3.1 8B, 64 H100")
    assert (claim.step_time_s, claim.layout.global_batch, claim.sequence, claim.count) == (0.9, 256, 4096, 64)
    claim = _claim("Llama 3.1 8B takes 5 hours for 1B tokens on 8 H100")
    assert (claim.tokens_total, claim.train_s) == (1e9, 18000.0)
    claim = _claim("Llama 3.1 8B on 1024 H100s with a batch of 16M tokens and 2.9 s per step")
    assert (claim.tokens_total, claim.train_s, claim.step_time_s, claim.layout.global_batch) == (16e6, 2.9, 2.9, None)
    claim = _claim("Llama 3.1 8B on 64 H100s: 4,194,304 tokens per step, 4 s/step")
    assert (claim.tokens_total, claim.train_s) == (4194304.0, 4.0)
    claim = _claim("4 it/s with batch size 2 and 2048 tokens on a 4090, Qwen2.5-1.5B")
    assert (claim.step_time_s, claim.layout.global_batch, claim.sequence, claim.count) == (0.25, 2, 2048, 1)
    claim = _claim("10 samples/s at 4096 tokens on 8 H100 with Llama 3.1 8B")
    assert (claim.samples_per_s, claim.sequence) == (10.0, 4096)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Mistral 7B and Llama 3.1 8B on 8 H100: 3000 tokens/s", "two models"),
        ("Mistral 7B went from 3000 tokens/s to 4000 tokens/s on 8 H100", "two values"),
        ("Mistral 7B on 4 nodes of H100: 390,000 tokens/s", "not how many chips"),
        ("Llama 2 7B on 8 A100, batch size 64: 20k tokens/s", "may be the batch of the whole job"),
        ("Llama 2 7B on 8 A100, 20k tokens/s per node", "the rate of one node"),
        ("Inference: Llama 3 8B on one H100 makes 12,000 tok/s", "generating text"),
        ("LoRA training of Llama 3 8B done; vLLM generates 9,000 tok/s on one H100", "generating text"),
        ("Llama 2 7B on 8 A100: between 18,000 and 20,000 tokens/s", "a range of rates"),
    ],
)
def test_two_readings_are_asked_about(text: str, question: str) -> None:
    assert is_document(text)
    with pytest.raises(BadData, match=question):
        document("s", "s", text)


@pytest.mark.parametrize("length", ["4096", "4,096", "4k"])
def test_a_batch_is_followed_by_its_length(length: str) -> None:
    claim = _claim(f"Mistral 7B takes 3.2 s per step with global batch 64 x {length} on 8 H100")
    assert (claim.sequence, claim.layout.global_batch, claim.count) == (4096, 64, 8)


def test_devices_behind_a_batch_are_no_length() -> None:
    assert _claim("Mistral 7B, global batch 64 x 1024 H100: 900,000 tokens/s").sequence is None


@pytest.mark.parametrize(
    "text",
    ["", "hello world", "step 3 loss 2.3 tok/s 4096", "tokens/s", '{"tokens/s": 3}', "a,b\n1,2", "the GPU is hot"],
)
def test_what_is_no_claim_is_no_sentence(text: str) -> None:
    assert not is_document(text)


_MODELS = {
    "Mistral 7B": "mistral-7b", "mistral-7b": "mistral-7b", "Llama 3.1 8B": "llama-3.1-8b",
    "Llama-2-7B": "llama-2-7b", "Qwen2.5-7B": "qwen2.5-7b", "7B Mistral": "mistral-7b",
    "the 70B Llama 2": "llama-2-70b",
}  # fmt: skip
_CHIPS = {"H100 SXM": "H100-SXM-80GB", "MI250": "MI250", "MI300X": "MI300X", "RTX 4090": "RTX-4090", "H200": "H200"}
_UNITS = {"tokens/s": 1, "tok/s": 1, "tokens per second": 1, "tokens/sec": 1, "k tokens/s": 1000, "k tok/s": 1000}


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(_MODELS)), st.sampled_from(sorted(_CHIPS)), st.integers(2, 999), st.integers(1, 9_999_999),
    st.sampled_from(sorted(_UNITS)), st.sampled_from(["", " per GPU", "/GPU", " each"]), st.booleans(),
    st.lists(st.sampled_from(["bf16", "sequence length 2048", "global batch of 512", "LoRA"]), unique=True),
    st.randoms(),
)  # fmt: skip
def test_what_is_written_is_what_is_read_or_asked_about(
    model: str,
    chip: str,
    count: int,
    rate: int,
    unit: str,
    each: str,
    is_grouped: bool,
    extras: list[str],
    dice: object,
) -> None:
    each = each if "second" not in unit or each != "/GPU" else ""
    where = [f"{count} {chip}", f"{count}x {chip}", f"{count} x {chip}s"][rate % 3]
    parts = [model, f"on {where}", f"{rate:,} {unit}{each}" if is_grouped else f"{rate} {unit}{each}", *extras]
    dice.shuffle(parts)  # type: ignore[attr-defined]
    text = ", ".join(parts)
    assert is_document(text), text
    try:
        claim = _claim(text)
    except BadData:
        return
    assert (claim.model, claim.count) == (_MODELS[model], count), text
    assert claim.device == _CHIPS[chip], text
    said = claim.tokens_per_s_per_device if each else claim.tokens_per_s
    assert said == rate * _UNITS[unit], text
    assert claim.sequence == (2048 if "sequence length 2048" in extras else None), text
    assert claim.layout.global_batch == (512 if "global batch of 512" in extras else None), text


@pytest.mark.parametrize(
    ("text", "rate", "count"),
    [
        (
            "DeepSeek-V3 was trained on 14.8T tokens in 2.664M H800 GPU hours on 2,048 H800",
            14.8e12 / 2.664e6 / 3600,
            2048,
        ),
        ("Llama 2 70B: 1,720,320 GPU hours for 2T tokens on A100-80GB", 2e12 / 1720320 / 3600, None),
        ("Llama 3.1 8B took 1.46 million H100 hours for 15T tokens", 15e12 / 1.46e6 / 3600, None),
    ],
)
def test_hours_of_devices_and_tokens_make_a_rate_per_device(text: str, rate: float, count: int | None) -> None:
    assert is_document(text)
    claim = _claim(text)
    assert claim.tokens_per_s_per_device == pytest.approx(rate)
    assert (claim.tokens_per_s, claim.count) == (None, count)
    assert claim.device in ("H800-80GB", "A100-80GB", "H100")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Phi-3-mini on 8 H100: 9,000 tokens/s", "phi-3-mini"), ("Falcon-40B on 8 H100: 9k tok/s", "falcon-40b"),
        ("Llama-3.3-70B with LoRA on 8 H100: 9k tok/s", "llama-3.3-70b"), ("GPT-4 on 8 H100: 9k tok/s", None),
        ("Foo-13B on 8 H100: 9k tok/s", "Foo-13B"), ("we trained a new 13B on 8 H100: 9k tok/s", "new 13B"),
        ("Mistral Nemo, 9k tokens/s per GPU (8 A100)", "mistral-nemo"),
    ],
)  # fmt: skip
def test_models_that_people_name(text: str, model: str | None) -> None:
    assert (_claim(text).model, _claim(text).count) == (model, 8)
