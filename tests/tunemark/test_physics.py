"""Formulas against numbers worked by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunemark.physics import mean_visible_keys, memory_floor_bytes, parameters, train_flops_per_token
from tunemark.plugin import Architecture

SMALL = Architecture(
    model_type="mistral",
    vocab_size=10,
    hidden_size=4,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=2,
    max_position_embeddings=64,
)

# Jiang et al. 2023, "Mistral 7B", table 1.
MISTRAL_7B = Architecture(
    model_type="mistral",
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=32768,
    sliding_window=4096,
)


def test_parameters_of_a_small_model_by_role():
    count = parameters(SMALL)
    assert count.embedding == 10 * 4
    # Per layer: queries 4x4, output 4x4, keys 4x2, values 4x2.
    assert count.attention == 2 * (16 + 16 + 8 + 8)
    assert count.mlp == 2 * 3 * 4 * 6
    assert count.norm == 5 * 4
    assert count.head == 40
    assert count.total == 40 + 96 + 144 + 20 + 40


def test_mistral_7b_has_the_published_checkpoint_s_parameters():
    # The sum of the tensors of mistralai/Mistral-7B-v0.1, and of v0.3, whose vocabulary is 768 larger.
    assert parameters(MISTRAL_7B).total == 7_241_732_096
    assert parameters(dataclasses.replace(MISTRAL_7B, vocab_size=32768)).total == 7_248_023_552


def test_tied_embeddings_are_counted_once_but_still_multiplied():
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    assert parameters(tied).total == parameters(SMALL).total - 40
    assert train_flops_per_token(tied, 4) == train_flops_per_token(SMALL, 4)


def test_flops_of_a_small_model_worked_by_hand():
    # Matmul parameters: 96 + 144 + 40 = 280, six each: 1680.
    # Attention, per layer and key: scores and values are 2 x 2 x heads x head_dim = 16 forward, 48 with backward.
    assert train_flops_per_token(SMALL, 4, "full") == 1680 + 2 * 48 * 4
    assert train_flops_per_token(SMALL, 4) == 1680 + 2 * 48 * 2.5
    # A window of 2: 1 + 2 + 2 + 2 keys over 4 queries.
    assert train_flops_per_token(dataclasses.replace(SMALL, sliding_window=2), 4) == 1680 + 2 * 48 * 1.75


def test_flops_of_mistral_7b_are_palm_s_formula():
    # 6 N + 12 L H Q T (PaLM, appendix B) with N = 7,110,393,856, all but embedding and norms.
    assert train_flops_per_token(MISTRAL_7B, 2048, "full") == 6 * 7_110_393_856 + 12 * 32 * 32 * 128 * 2048
    assert train_flops_per_token(MISTRAL_7B, 2048, "full") == 45_883_588_608
    assert train_flops_per_token(MISTRAL_7B, 2048) == 42_662_363_136 + 1_572_864 * 1024.5


@given(st.integers(1, 200), st.one_of(st.none(), st.integers(1, 250)))
def test_mean_visible_keys_is_the_sum_that_it_abbreviates(sequence, window):
    visible = [i if window is None else min(i, window) for i in range(1, sequence + 1)]
    assert mean_visible_keys(sequence, window) == pytest.approx(sum(visible) / sequence, rel=1e-12)


@pytest.mark.parametrize(
    ("precision", "optimizer", "each"),
    [
        # 4 weight + 4 gradient + 8 moments; half of each in bf16; sgd without momentum has no moments.
        ("fp32", "adamw", 16),
        ("bf16-autocast", "adamw", 16),
        ("bf16", "adamw", 8),
        ("fp32", "sgd", 8),
        ("bf16", "sgd", 4),
    ],
)
def test_memory_floor_per_parameter(precision, optimizer, each):
    assert memory_floor_bytes(1000, precision, optimizer) == 1000 * each
