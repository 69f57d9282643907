"""Training FLOPs per token: model FLOPs (without recomputation) and hardware FLOPs (with recomputed activations). Two
FLOPs per multiply-add; only matrix multiplications count.

There are two conventions for attention, and every figure names its own: "causal" counts the keys visible under the mask
and the window, "full" all of the sequence, as most published figures do.

Sources: Chowdhery et al. 2022, "PaLM", appendix B, which counts attention in full; Dao 2023, "FlashAttention-2",
section 4.1, which counts the causal half; Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models", section 5 and appendix A; Hu et al. 2021, "LoRA", section 4; Liu et al. 2024, "DoRA", section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

from tunemark.physics import traced_counts
from tunemark.physics.parameters import LORA_TARGETS, LoraAdapter, WeightMatrix, layer_matrices, lora_adapters
from tunemark.plugin.descriptors import Architecture

AttentionConvention = Literal["causal", "full"]
Recomputation = Literal["none", "selective", "full"]

ATTENTION_CONVENTIONS: tuple[AttentionConvention, ...] = get_args(AttentionConvention)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedWeights:
    """The weights that are trained; by default all.

    first_layer: the first trained layer; all later layers are trained too. None where all layers' own weights are
    frozen. lora_rank: of the adapters in every layer, 0 for none; lora_targets: the targets of `adapters`.
    lora_magnitudes: each adapted matrix has a trained magnitude per output, as in DoRA.
    A tied embedding and head are one weight, trained if either field is true.
    """

    embedding: bool = True
    first_layer: int | None = 0
    head: bool = True
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = LORA_TARGETS
    lora_magnitudes: bool = False

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or (self.first_layer is not None and self.first_layer < 0):
            raise ValueError("lora_rank and first_layer must be 0 or more")


ALL_WEIGHTS = TrainedWeights()


def lora_trained_weights(
    rank: int, targets: Iterable[str] = LORA_TARGETS, *, magnitudes: bool = False
) -> TrainedWeights:
    """Adapters alone, as in peft: all of the model's own weights are frozen, embedding and head included."""
    if rank < 1:
        raise ValueError(f"a rank must be 1 or more, not {rank}")
    return TrainedWeights(
        embedding=False,
        first_layer=None,
        head=False,
        lora_rank=rank,
        lora_targets=tuple(targets),
        lora_magnitudes=magnitudes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsByRole:
    """FLOPs per slot by role. attention: the projections of attention, or of what mixes tokens in its place; scores:
    queries x keys, and attention weights x values; scan: products of activations that grow with the sequence only, as
    in linear attention; adapters: LoRA's matrices; head: with other projections outside the layers."""

    attention: float = 0.0
    scores: float = 0.0
    scan: float = 0.0
    mlp: float = 0.0
    router: float = 0.0
    adapters: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, f.name) for f in fields(self)))


def train_flops_per_token(
    a: Architecture, sequence: int, attention: AttentionConvention = "causal", trained: TrainedWeights = ALL_WEIGHTS
) -> float:
    """Model FLOPs to train on one slot of a sequence: forward plus backward, nothing recomputed.

    With everything trained: 6 per matmul parameter that the token uses (2 forward, 4 backward), plus attention's scores
    and values, 12 · layers · heads · head_dim · mean visible keys. Embedding look-ups are free; the output head is not,
    tied or untied. Of a mixture's experts only those chosen by the router count, plus the router itself.
    Frozen weights need fewer: see `train_flops_by_role`.

    Sources: PaLM, appendix B ("full"); FlashAttention-2, section 4.1 ("causal").
    """
    return train_flops_by_role(a, sequence, attention, trained).total


def train_flops_by_convention(
    a: Architecture, sequence: int, trained: TrainedWeights = ALL_WEIGHTS
) -> dict[AttentionConvention, float]:
    """`train_flops_per_token` by attention convention."""
    return {name: train_flops_per_token(a, sequence, name, trained) for name in ATTENTION_CONVENTIONS}


# A layout search makes the same few calls tens of thousands of times.
@functools.lru_cache(maxsize=256)
def train_flops_by_role(
    a: Architecture, sequence: int, attention: AttentionConvention = "causal", trained: TrainedWeights = ALL_WEIGHTS
) -> FlopsByRole:
    """Model FLOPs per slot, forward plus backward, by role.

    For y = x W the backward pass costs as much as the forward pass for W's gradient, if W is trained, and as much again
    for x's, if anything before W is trained. So a frozen matrix costs 4 per parameter, not 6, after the first trained
    weight, and 2 before it, which the backward pass does not reach. Under LoRA with a frozen embedding the input of the
    first layer needs no gradient, and neither do its keys unless they are adapted. (With gradient checkpointing,
    transformers computes that input's gradient all the same; the mathematics does not need it, so it is not counted.)
    The norms of a trained layer are trained too, so that the inputs of its projections always need gradients.

    Source: Hu et al. 2021, "LoRA", section 4 (frozen weights need no gradient); the rest is the chain rule.
    """
    layers, head, _ = _layer_flops(a, sequence, attention, trained)
    return _sum([*layers, FlopsByRole(head=head)])


@functools.lru_cache(maxsize=256)
def hardware_flops_per_token(
    a: Architecture,
    sequence: int,
    attention: AttentionConvention = "causal",
    recomputation: Recomputation = "none",
    trained: TrainedWeights = ALL_WEIGHTS,
) -> float:
    """FLOPs per slot including activations recomputed for the backward pass; divided by the peak, this is HFU.

    "full": the forward pass of every layer again, but not the head's (8 instead of 6 per matmul parameter of a layer,
    16 instead of 12 for scores). "selective": only scores and values again, 16 instead of 12; the cited paper's formula
    doubles the term (24). Layers that the backward pass does not reach are not recomputed. Recomputation inside the
    backward pass of a fused attention kernel is not counted, nor is it in published figures.

    Source: Korthikanti et al. 2022, section 5 and appendix A.
    """
    layers, head, reached = _layer_flops(a, sequence, attention, trained)
    recomputed = FlopsByRole()
    if recomputation != "none":
        forward, *_ = _layer_flops(a, sequence, attention, trained, is_backward=False)
        recomputed = _sum(forward[reached:])
    if recomputation == "selective":
        recomputed = FlopsByRole(scores=recomputed.scores)
    return _sum([*layers, FlopsByRole(head=head), recomputed]).total


class WeightNormFlops(NamedTuple):
    """FLOPs of the norms of all adapted matrices, whatever the number of tokens. needed: once for each update. spent:
    by peft in each forward pass."""

    needed: float
    spent: float


def weight_norm_flops(a: Architecture, trained: TrainedWeights) -> WeightNormFlops:
    """What DoRA's norms of W + B A cost, of which only the product B A is one of matrices: 2 · rank · inputs · outputs.

    The norm is a constant of the backward pass, and scaling by the magnitude is elementwise, so nothing else is added
    to LoRA's FLOPs. peft sends an identity through both matrices, which costs 2 · rank · inputs · (inputs + outputs).

    Sources: Liu et al. 2024, "DoRA", equation 5 and section 4.3; huggingface/peft 0.21, tuners/lora/dora.py.
    """
    shapes = magnitude_shapes(a, trained)
    return WeightNormFlops(
        needed=float(sum(2 * trained.lora_rank * m * n * times for m, n, times in shapes)),
        spent=float(sum(2 * trained.lora_rank * m * (m + n) * times for m, n, times in shapes)),
    )


def magnitude_shapes(a: Architecture, trained: TrainedWeights) -> list[tuple[int, int, int]]:
    """(inputs, outputs, times in a forward pass of all layers) of the matrices that have magnitudes."""
    if not trained.lora_magnitudes:
        return []
    if a.traced is not None:
        return traced_counts.adapter_shapes(a.traced, trained.lora_targets)
    pairs = lora_adapters(a, trained.lora_targets)
    return [(x.inputs, x.outputs, x.copies * a.num_hidden_layers) for x in pairs]


class SlotFlops(NamedTuple):
    """FLOPs per slot of a training step: model FLOPs with causal and with full attention, and with what checkpointing
    computes again."""

    model: float
    full_attention: float
    hardware: float


def count_slot_flops(
    a: Architecture, width: int, micro_batch: int, global_batch: int, recomputation: str, trained: TrainedWeights
) -> SlotFlops:
    """The FLOPs of a slot in a row of so many slots, with its share of what is computed once for each update or each
    forward pass."""
    norms = weight_norm_flops(a, trained)
    per_update = norms.needed / (global_batch * width)
    # A recomputed layer takes the norms of its matrices again; selective checkpointing keeps their products.
    forwards = 2 if recomputation == "full" else 1
    per_forward = forwards * norms.spent / (micro_batch * width)
    return SlotFlops(
        model=train_flops_per_token(a, width, trained=trained) + per_update,
        full_attention=train_flops_per_token(a, width, "full", trained) + per_update,
        hardware=hardware_flops_per_token(a, width, recomputation=recomputation, trained=trained) + per_forward,
    )


def mean_visible_keys(sequence: int, window: int | None) -> float:
    """Keys that a query sees under a causal mask, itself included, averaged over the sequence: sum of min(i, w) / S."""
    w = sequence if window is None else min(window, sequence)
    # The first w queries see 1, 2 ... w keys, the others w each.
    return (w * (w + 1) / 2 + (sequence - w) * w) / sequence


def _layer_flops(
    a: Architecture, sequence: int, attention: AttentionConvention, trained: TrainedWeights, *, is_backward: bool = True
) -> tuple[list[FlopsByRole], float, int]:
    """(FLOPs of each layer, FLOPs of the head, the first layer that the backward pass reaches)"""
    if a.traced is not None:
        return _traced_flops(a, sequence, attention, trained, is_backward=is_backward)
    layer, lora_pairs = layer_matrices(a), lora_adapters(a, trained.lora_targets) if trained.lora_rank else ()
    keys = {window: _keys(sequence, window, attention) for window in {None, a.sliding_window}}
    # Whether the layer's input needs a gradient.
    input_grad = trained.embedding or (a.tie_word_embeddings and trained.head)
    layers, reached = [], a.num_hidden_layers
    for number in range(a.num_hidden_layers):
        is_sliding = a.layer_types is None or a.layer_types[number] == "sliding_attention"
        flops, input_grad = _one_layer_flops(
            layer,
            lora_pairs,
            rank=trained.lora_rank,
            # One product of all heads' queries with their visible keys; the one with the values costs as much.
            product=2 * a.num_attention_heads * a.head_dim * keys[a.sliding_window if is_sliding else None],
            is_trained=trained.first_layer is not None and number >= trained.first_layer,
            input_grad=input_grad,
            is_backward=is_backward,
        )
        layers.append(flops)
        reached = min(reached, number) if input_grad else reached
    is_head_trained = trained.head or (a.tie_word_embeddings and trained.embedding)
    times = 1 + is_backward * (int(input_grad) + int(is_head_trained))
    return layers, 2.0 * times * a.vocab_size * a.hidden_size, reached


def _traced_flops(
    a: Architecture, sequence: int, attention: AttentionConvention, trained: TrainedWeights, *, is_backward: bool
) -> tuple[list[FlopsByRole], float, int]:
    """As `_layer_flops`, from what the model was seen to do."""
    assert a.traced is not None
    is_embedding_trained = trained.embedding or (a.tie_word_embeddings and trained.head)
    ends = traced_counts.ends_flops(
        a.traced.before, sequence, is_trained=is_embedding_trained, input_grad=False, is_backward=is_backward
    )
    input_grad = is_embedding_trained
    layers, reached = [], len(a.traced.order)
    for number, layer in enumerate(a.traced.layers):
        by_role, input_grad = traced_counts.layer_flops(
            layer,
            sequence,
            is_causal=attention == "causal",
            is_trained=trained.first_layer is not None and number >= trained.first_layer,
            input_grad=input_grad,
            lora_rank=trained.lora_rank,
            lora_targets=trained.lora_targets,
            is_backward=is_backward,
        )
        layers.append(FlopsByRole(**by_role))
        reached = min(reached, number) if input_grad else reached
    ends += traced_counts.ends_flops(
        a.traced.after,
        sequence,
        is_trained=trained.head or (a.tie_word_embeddings and trained.embedding),
        input_grad=input_grad,
        is_backward=is_backward,
    )
    return layers, ends, reached


def _one_layer_flops(
    layer: Iterable[WeightMatrix],
    lora_pairs: Iterable[LoraAdapter],
    *,
    rank: int,
    product: float,
    is_trained: bool,
    input_grad: bool,
    is_backward: bool,
) -> tuple[FlopsByRole, bool]:
    """(FLOPs of one layer, whether its output needs a gradient)"""
    adapted = {part for pair in lora_pairs for part in pair.parts}
    qkv_input = input_grad or is_trained
    # Whether each projection's output needs a gradient, and what follows it.
    q, k, v = (qkv_input or name in adapted for name in ("q_proj", "k_proj", "v_proj"))
    o_input = q or k or v
    mlp_input = qkv_input or o_input or "o_proj" in adapted
    down_input = mlp_input or bool({"gate_proj", "up_proj"} & adapted)
    # Whether each matrix's input needs a gradient.
    input_grads = {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), qkv_input),
        "o_proj": o_input,
        **dict.fromkeys(("router", "gate_proj", "up_proj"), mlp_input),
        "down_proj": down_input,
    }
    by_role = {"attention": 0.0, "mlp": 0.0, "router": 0.0}
    for m in layer:
        times = 1 + is_backward * (int(is_trained) + int(input_grads[m.name]))
        by_role[m.role] += 2 * times * m.inputs * m.outputs * m.used
    low_rank = 0.0
    for pair in lora_pairs:
        # Both matrices have a weight gradient; the second also an input gradient, the first if its input needs one.
        down = 1 + is_backward * (1 + int(input_grads[pair.parts[0]]))
        up = 1 + is_backward * 2
        low_rank += 2 * rank * (down * pair.inputs + up * pair.outputs) * pair.used
    # Queries x keys has a gradient for each of the two, attention weights x values likewise.
    products = 2 + is_backward * (int(q) + int(k) + int(q or k) + int(v))
    return FlopsByRole(scores=products * product, adapters=low_rank, **by_role), down_input or "down_proj" in adapted


def _keys(sequence: int, window: int | None, attention: AttentionConvention) -> float:
    return mean_visible_keys(sequence, window) if attention == "causal" else float(sequence)


def _sum(parts: Iterable[FlopsByRole]) -> FlopsByRole:
    rows = list(parts)
    return FlopsByRole(**{f.name: sum(getattr(row, f.name) for row in rows) for f in fields(FlopsByRole)})
