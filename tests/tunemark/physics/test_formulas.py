"""Formulas against numbers worked by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunemark.physics import (
    TrainedWeights,
    count_lora_parameters,
    count_parameters,
    hardware_flops_per_token,
    lora_trained_weights,
    make_architecture,
    mean_visible_keys,
    memory_floor_bytes,
    train_flops_by_convention,
    train_flops_by_role,
    train_flops_per_token,
    weight_norm_flops,
)
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


# GPT-2's kind: biases, LayerNorm, learned positions, two matrices in the MLP, a tied head.
SMALL_GPT = dataclasses.replace(
    SMALL,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    attention_bias=True,
    mlp_bias=True,
    gated_mlp=False,
    norm_bias=True,
    learned_positions=True,
)

# Chowdhery et al. 2022, "PaLM", table 1 and section 2: 118 layers, d_model 18432, 48 heads of 256 with one head of keys
# and values, a gated MLP of 4 x d_model, 256k words that input and output share.
PALM_540B = make_architecture(
    layers=118,
    hidden=18432,
    intermediate=4 * 18432,
    is_gated=True,
    heads=48,
    kv_heads=1,
    head_dim=256,
    vocab=256000,
    is_tied=True,
)

# Korthikanti et al. 2022, table 3: GPT-3 with a vocabulary of 51200.
GPT_175B = make_architecture(
    layers=96, hidden=12288, intermediate=49152, is_gated=False, heads=96, vocab=51200, is_tied=True
)


def test_parameters_of_a_small_model_by_role():
    count = count_parameters(SMALL)
    assert count.embedding == 10 * 4
    # Per layer: queries 4x4, output 4x4, keys 4x2, values 4x2.
    assert count.attention == 2 * (16 + 16 + 8 + 8)
    assert count.mlp == 2 * 3 * 4 * 6
    assert count.norm == 5 * 4
    assert count.head == 40
    assert count.total == 40 + 96 + 144 + 20 + 40


def test_mistral_7b_has_the_published_checkpoint_s_parameters():
    # The sum of the tensors of mistralai/Mistral-7B-v0.1, and of v0.3, whose vocabulary is 768 larger.
    assert count_parameters(MISTRAL_7B).total == 7_241_732_096
    assert count_parameters(dataclasses.replace(MISTRAL_7B, vocab_size=32768)).total == 7_248_023_552


def test_tied_embeddings_are_counted_once_but_still_multiplied():
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    assert count_parameters(tied).total == count_parameters(SMALL).total - 40
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


def test_parameters_of_a_small_gpt_by_role():
    count = count_parameters(SMALL_GPT)
    assert (count.embedding, count.position, count.head) == (40, 64 * 4, 0)
    # Per layer: four of 4x4; two of 4x6; biases 4 + 4 + 4 + 4 and 6 + 4; two norms of 4 weights and 4 biases.
    assert (count.attention, count.mlp, count.bias) == (2 * 64, 2 * 48, 2 * 26)
    assert count.norm == 5 * 8
    assert count.total == 40 + 256 + 128 + 96 + 52 + 40


def test_biases_and_norms_of_queries_and_keys():
    # Queries 4, keys and values 2 each: biases on these three alone; with all four, 4 more.
    assert count_parameters(dataclasses.replace(SMALL, qkv_bias=True)).bias == 2 * 8
    assert count_parameters(dataclasses.replace(SMALL, attention_bias=True)).bias == 2 * 12
    # One weight of head_dim each; or over 2 heads of queries and 1 of keys.
    norm = count_parameters(SMALL).norm
    assert count_parameters(dataclasses.replace(SMALL, qk_norm="head")).norm == norm + 2 * (2 + 2)
    assert count_parameters(dataclasses.replace(SMALL, qk_norm="projection")).norm == norm + 2 * (4 + 2)
    assert count_parameters(dataclasses.replace(SMALL, norms_per_layer=4)).norm == norm + 2 * 2 * 4


def test_a_mixture_multiplies_only_the_experts_it_chose():
    mixture = dataclasses.replace(SMALL, num_local_experts=4, num_experts_per_tok=2)
    count = count_parameters(mixture)
    # Per layer 4 experts of 3 x 4 x 6 and a router of 4 x 4; a token passes 2 of them.
    assert (count.mlp, count.mlp_active, count.router) == (2 * 4 * 72, 2 * 2 * 72, 2 * 16)
    assert count.active == count.total - 2 * 2 * 72
    dense = train_flops_by_role(SMALL, 4)
    flops = train_flops_by_role(mixture, 4)
    assert (flops.mlp, flops.router) == (2 * dense.mlp, 6 * 32)
    assert flops.total == dense.total + dense.mlp + 6 * 32


def test_flops_of_a_small_gpt_worked_by_hand():
    # 6 x (128 + 96 + the tied head's 40); scores as SMALL's, which has as many heads of queries.
    assert train_flops_per_token(SMALL_GPT, 4, "full") == 6 * 264 + 2 * 48 * 4


def test_layers_of_two_kinds_count_their_own_keys():
    gemma = dataclasses.replace(SMALL, sliding_window=2, layer_types=("sliding_attention", "full_attention"))
    # A window of 2 leaves 1.75 keys of 4 in the first layer, the second sees 2.5.
    assert train_flops_per_token(gemma, 4) == 1680 + 48 * 1.75 + 48 * 2.5
    assert train_flops_per_token(gemma, 4, "full") == 1680 + 2 * 48 * 4


def test_both_conventions_come_by_name():
    assert train_flops_by_convention(SMALL, 4) == {"causal": 1680 + 2 * 48 * 2.5, "full": 1680 + 2 * 48 * 4}


def test_lora_worked_by_hand():
    # Rank 1 on queries (4 -> 4) and values (4 -> 2): 8 + 6 in each of two layers.
    assert count_lora_parameters(SMALL, 1) == 2 * 14
    flops = train_flops_by_role(SMALL, 4, "full", lora_trained_weights(1))
    # Queries, keys, values, output: 16 + 8 + 8 + 16. The first layer's input needs no gradient, so that the first three
    # cost 2 and the output's 4; in the second all cost 4.
    assert flops.attention == (2 * 32 + 4 * 16) + 4 * 48
    assert flops.mlp == 2 * 4 * 72
    assert flops.head == 4 * 40
    # A product costs 2 x heads x head_dim x keys = 32. Forward two; backward four, but the first layer's keys have no
    # gradient: three.
    assert flops.scores == 32 * (2 + 3) + 32 * (2 + 4)
    # 6 for each parameter, less 2 for the first layer's 4 + 4 inputs.
    assert flops.adapters == 6 * 28 - 2 * 8
    assert train_flops_per_token(SMALL, 4, "full", lora_trained_weights(1)) == flops.total


def test_magnitudes_worked_by_hand():
    # One for each output: 4 of the queries, 2 of the values, in each of two layers.
    assert count_lora_parameters(SMALL, 3, magnitudes=True) == 3 * 28 + 2 * 6
    plain, scaled = lora_trained_weights(3), lora_trained_weights(3, magnitudes=True)
    # B A of rank 3 is 4 x 3 x 4 and 2 x 3 x 4 multiply-adds; an identity of 4 x 4 through A, then B: 4 x 3 x (4 + 4)
    # and 4 x 3 x (4 + 2).
    assert weight_norm_flops(SMALL, scaled) == (2 * 2 * (48 + 24), 2 * 2 * (96 + 72))
    assert weight_norm_flops(SMALL, plain) == (0, 0)
    assert train_flops_by_role(SMALL, 4, "full", scaled) == train_flops_by_role(SMALL, 4, "full", plain)


def test_magnitudes_are_as_many_as_the_paper_says():
    # Liu et al. 2024, "DoRA", table 1: of LLaMA-7B, LoRA of rank 32 trains 0.83 % and DoRA 0.84 %, on queries, keys,
    # values, up and down.
    llama = make_architecture(layers=32, hidden=4096, intermediate=11008, is_gated=True, heads=32, vocab=32000)
    targets = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    whole = count_parameters(llama).total
    shares = [100 * count_lora_parameters(llama, 32, targets, magnitudes=each) / whole for each in (False, True)]
    assert shares == pytest.approx([0.83, 0.84], abs=0.006)


def test_lora_on_fused_matrices_shares_its_input_half():
    # Queries, keys and values as one: 4 -> 8. The MLP's 4 -> 12. GPT-2's c_proj is two: 4 -> 4 and 6 -> 4.
    assert count_lora_parameters(SMALL, 3, ["qkv_proj"]) == 2 * 3 * 12
    assert count_lora_parameters(SMALL, 3, ["gate_up_proj"]) == 2 * 3 * 16
    assert count_lora_parameters(SMALL_GPT, 3, ["c_attn", "c_proj", "c_fc"]) == 2 * 3 * (16 + 8 + 10 + 10)
    with pytest.raises(ValueError, match=r"no matrix 'gate_proj' to adapt; a layer has q_proj, "):
        count_lora_parameters(SMALL_GPT, 3, ["gate_proj"])
    with pytest.raises(ValueError, match="a rank must be 1 or more"):
        lora_trained_weights(0)


def test_lora_trains_as_many_parameters_as_the_paper_says():
    # Hu et al. 2021, "LoRA", table 4: GPT-3 175B with 4.7 and 37.7 million, ranks 1 and 8 on queries and values.
    assert count_lora_parameters(GPT_175B, 1) == pytest.approx(4.7e6, rel=0.01)
    assert count_lora_parameters(GPT_175B, 8) == pytest.approx(37.7e6, rel=0.01)


def test_backward_goes_no_further_than_the_first_trained_layer():
    # The second layer alone, with its norms: 6 for it, 2 for the frozen layer before it, 4 for the frozen head.
    last = TrainedWeights(embedding=False, first_layer=1, head=False)
    assert train_flops_per_token(SMALL, 4, "full", last) == (6 + 2) * 120 + 4 * 40 + 32 * (2 + 6)
    # The head alone: 2 for both layers, 4 for the head.
    head = TrainedWeights(embedding=False, first_layer=None)
    assert train_flops_per_token(SMALL, 4, "full", head) == 2 * 240 + 4 * 40 + 2 * 32 * 2
    # A tied head is the embedding, so that all is walked back; the layers' own weights stay frozen.
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    assert train_flops_per_token(tied, 4, "full", head) == 4 * 240 + 6 * 40 + 2 * 32 * 6


def test_flops_without_a_backward_pass_are_a_third():
    nothing = TrainedWeights(embedding=False, first_layer=None, head=False)
    assert train_flops_per_token(MISTRAL_7B, 512, "full", nothing) * 3 == train_flops_per_token(MISTRAL_7B, 512, "full")


def test_recomputation_adds_forward_passes():
    model = train_flops_per_token(SMALL, 4, "full")
    assert hardware_flops_per_token(SMALL, 4, "full") == model
    # Scores and values once more: two products of 32 in each layer.
    assert hardware_flops_per_token(SMALL, 4, "full", "selective") == model + 2 * 2 * 32
    # The layers once more: 2 x 240 and the products.
    assert hardware_flops_per_token(SMALL, 4, "full", "full") == model + 2 * 240 + 2 * 2 * 32
    # What backward never reaches is not computed again.
    last = TrainedWeights(embedding=False, first_layer=1, head=False)
    less = hardware_flops_per_token(SMALL, 4, "full", "full", last) - train_flops_per_token(SMALL, 4, "full", last)
    assert less == 2 * 120 + 2 * 32


def test_full_recomputation_is_megatron_s_formula():
    # Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters", section 5.1, per token:
    # 96 L h^2 (1 + s / 6h + V / 16 L h).
    layers, h, s, v = 96, 12288, 2048, 51200
    expected = 96 * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))
    assert hardware_flops_per_token(GPT_175B, s, "full", "full") == pytest.approx(expected, rel=1e-12)


def test_utilization_of_gpt_175b_as_published():
    # Korthikanti et al. 2022, table 5: a batch of 64 x 2048 in 13.75 s on 64 A100 (312 TFLOP/s) is an MFU of 51.4 %.
    flops = train_flops_per_token(GPT_175B, 2048, "full") * 64 * 2048 / 13.75
    assert flops / (64 * 312e12) == pytest.approx(0.514, abs=0.0005)


def test_palm_540b_as_published():
    # Chowdhery et al. 2022, table 1: 540.35 billion parameters. Section 4.1 and table 3: 238.3 thousand tokens/s on
    # 6144 TPU v4 (275 TFLOP/s) are an MFU of 46.2 %, attention counted in full.
    assert count_parameters(PALM_540B).total == pytest.approx(540.35e9, abs=0.01e9)
    mfu = 238.3e3 * train_flops_per_token(PALM_540B, 2048, "full") / (6144 * 275e12)
    assert mfu == pytest.approx(0.462, abs=0.0005)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": 0}, "dimensions must be 1 or more, not hidden 0"),
        ({"heads": 3}, "3 heads do not divide a hidden size of 64"),
        ({"kv_heads": 3}, "3 key-value heads do not divide 4 heads"),
        ({"experts": 8}, "num_local_experts and num_experts_per_tok"),
    ],
)
def test_dimensions_that_contradict_each_other_are_refused(changes, words):
    sound = {"layers": 2, "hidden": 64, "intermediate": 256, "is_gated": False, "heads": 4, "vocab": 100}
    assert make_architecture(**sound).head_dim == 16
    with pytest.raises(ValueError, match=words):
        make_architecture(**{**sound, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ("full_attention",)}, "1 layer types for 2 layers"),
        ({"layer_types": ("full_attention", "sliding_attention")}, "no sliding_window"),
        ({"attention_bias": True, "qkv_bias": True}, "only one of them"),
    ],
)
def test_an_architecture_that_contradicts_itself_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


def test_an_architecture_tells_what_is_not_llama_s():
    plain = dataclasses.asdict(SMALL)
    always = {k: plain[k] for k in list(plain)[: list(plain).index("layer_types")]}
    assert SMALL.as_dict() == always
    assert "sliding_window" in always
    assert dataclasses.replace(SMALL, qkv_bias=True).as_dict() == {**always, "qkv_bias": True}


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
        ("fp32", "adafactor", 8),
        ("bf16", "sgd", 4),
    ],
)
def test_memory_floor_per_parameter(precision, optimizer, each):
    assert memory_floor_bytes(1000, precision, optimizer) == 1000 * each


def test_frozen_parameters_are_held_and_nothing_more():
    # 1000 weights of 4 bytes; 10 of them with a gradient and two moments.
    assert memory_floor_bytes(1000, "fp32", "adamw", trainable=10) == 4000 + 10 * 12
    assert memory_floor_bytes(1000, "fp32", "adamw", trainable=1000) == memory_floor_bytes(1000, "fp32", "adamw")
    with pytest.raises(ValueError, match="1001 of 1000"):
        memory_floor_bytes(1000, "fp32", "adamw", trainable=1001)


def test_moments_of_eight_bits_worked_by_hand():
    # 1,024 bf16 weights and gradients; two moments of 1,024 bytes with 4 scales of 4 bytes.
    assert memory_floor_bytes(1024, "bf16", "adamw-8bit") == 2 * 2 * 1024 + 2 * (1024 + 16)
    # Half trained, in fp32.
    assert memory_floor_bytes(1024, "fp32", "adamw-8bit", 512) == 4 * 1024 + 4 * 512 + 2 * (512 + 8)


def test_lora_s_memory_as_published():
    # Hu et al. 2021, section 4.2: training GPT-3 175B with LoRA takes 350 GB, which are its weights of 16 bits.
    adapters = count_lora_parameters(GPT_175B, 4)
    total = count_parameters(GPT_175B).total
    assert memory_floor_bytes(total + adapters, "bf16", "adamw", adapters) == pytest.approx(350e9, rel=0.01)


def test_flops_are_walked_through_once_for_all_layouts_of_a_search():
    assert train_flops_by_role(SMALL, 4) is train_flops_by_role(SMALL, 4)
