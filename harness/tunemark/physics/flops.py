"""FLOPs of training per token: what the arithmetic needs (model FLOPs), and what is done where activations are computed
a second time (hardware FLOPs). Two FLOPs per multiply-add; matrix multiplications alone.

There are two conventions of attention, and every figure names its own: "causal" counts the keys that the mask and the
window leave, "full" all of the sequence, as most published figures do.

Sources: Chowdhery et al. 2022, "PaLM", appendix B, where attention is counted in full; Dao 2023, "FlashAttention-2",
section 4.1, where the causal half alone is; Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models", section 5 and appendix A; Hu et al. 2021, "LoRA", section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from tunemark.physics.parameters import LORA_TARGETS, Adapter, Matrix, adapters, matrices
from tunemark.plugin.descriptors import Architecture

Attention = Literal["causal", "full"]
Recomputation = Literal["none", "selective", "full"]

CONVENTIONS: tuple[Attention, ...] = get_args(Attention)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The weights that an update changes; by default all.

    first_layer: layers before it are frozen, it and those behind it train; None where all layers' own weights are
    frozen. lora_rank: of the adapters in every layer, 0 for none; lora_targets: as `adapters` takes them.
    A tied embedding and head are one weight: it trains where either is said to.
    """

    embedding: bool = True
    first_layer: int | None = 0
    head: bool = True
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or (self.first_layer is not None and self.first_layer < 0):
            raise ValueError("lora_rank and first_layer are 0 or more")


EVERYTHING = Trained()


def lora(rank: int, targets: Iterable[str] = LORA_TARGETS) -> Trained:
    """Adapters alone, as peft trains them: all that the model itself has is frozen, embedding and head too."""
    if rank < 1:
        raise ValueError(f"a rank is 1 or more, not {rank}")
    return Trained(embedding=False, first_layer=None, head=False, lora_rank=rank, lora_targets=tuple(targets))


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """FLOPs per slot by role. attention: its projections; scores: queries by keys, and weights by values; adapters:
    LoRA's own matrices."""

    attention: float = 0.0
    scores: float = 0.0
    mlp: float = 0.0
    router: float = 0.0
    adapters: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, f.name) for f in fields(self)))


def train_flops_per_token(
    a: Architecture, sequence: int, attention: Attention = "causal", trained: Trained = EVERYTHING
) -> float:
    """Model FLOPs to train on one slot of a sequence: forward plus backward, nothing recomputed.

    With everything trained: 6 per matmul parameter that the token meets (2 forward, 4 backward), plus attention's
    scores and values, 12 · layers · heads · head_dim · mean visible keys. Embedding look-ups are free; the output head
    is not, tied or untied. Of a mixture's experts those count that the router chose, and the router itself.
    What is frozen needs less: `train_flops_by_role` says how much.

    Sources: PaLM, appendix B ("full"); FlashAttention-2, section 4.1 ("causal").
    """
    return train_flops_by_role(a, sequence, attention, trained).total


def train_flops_by_convention(a: Architecture, sequence: int, trained: Trained = EVERYTHING) -> dict[Attention, float]:
    """`train_flops_per_token` under the name of each convention."""
    return {name: train_flops_per_token(a, sequence, name, trained) for name in CONVENTIONS}


# A search asks for the same few, tens of thousands of times.
@functools.lru_cache(maxsize=256)
def train_flops_by_role(
    a: Architecture, sequence: int, attention: Attention = "causal", trained: Trained = EVERYTHING
) -> Flops:
    """Model FLOPs per slot, forward plus backward, by role.

    For y = x W the backward pass costs as much as the forward pass for W's gradient, where W trains, and as much again
    for x's, where anything before it trains. So a frozen matrix costs 4 per parameter, not 6, behind the first trained
    weight, and 2 before it, where backward never comes. Under LoRA with a frozen embedding the first layer's input
    needs no gradient, and neither do its keys unless they are adapted. (With gradient checkpointing, transformers asks
    for that input's gradient all the same: no need of the arithmetic, so it is not in here.)
    The norms of a layer that trains train too, so that its projections' inputs need gradients wherever it stands.

    Source: Hu et al. 2021, "LoRA", section 4 (frozen weights need no gradient); the rest is the chain rule.
    """
    layers, head, _ = _walk(a, sequence, attention, trained)
    return _sum([*layers, Flops(head=head)])


@functools.lru_cache(maxsize=256)
def hardware_flops_per_token(
    a: Architecture,
    sequence: int,
    attention: Attention = "causal",
    recomputation: Recomputation = "none",
    trained: Trained = EVERYTHING,
) -> float:
    """FLOPs per slot that are done where activations are computed again for the backward pass; over peak, this is HFU.

    "full": the forward pass of every layer once more, the head's not (8 instead of 6 per matmul parameter of a layer,
    16 instead of 12 of scores). "selective": scores and values alone, 16 instead of 12; the cited paper's formula
    doubles the term (24). Layers that backward never reaches are not recomputed. What a fused attention kernel
    recomputes inside its backward pass is not in here, nor in the published figures.

    Source: Korthikanti et al. 2022, section 5 and appendix A.
    """
    layers, head, reached = _walk(a, sequence, attention, trained)
    again = Flops()
    if recomputation != "none":
        forward, *_ = _walk(a, sequence, attention, trained, is_backward=False)
        again = _sum(forward[reached:])
    if recomputation == "selective":
        again = Flops(scores=again.scores)
    return _sum([*layers, Flops(head=head), again]).total


def mean_visible_keys(sequence: int, window: int | None) -> float:
    """Keys that a query sees under a causal mask, itself included, averaged over the sequence: sum of min(i, w) / S."""
    w = sequence if window is None else min(window, sequence)
    # The first w queries see 1, 2 ... w keys, the others w each.
    return (w * (w + 1) / 2 + (sequence - w) * w) / sequence


def _walk(
    a: Architecture, sequence: int, attention: Attention, trained: Trained, *, is_backward: bool = True
) -> tuple[list[Flops], float, int]:
    """The FLOPs of each layer, those of the head, and the first layer that backward reaches."""
    layer, added = matrices(a), adapters(a, trained.lora_targets) if trained.lora_rank else ()
    keys = {window: _keys(sequence, window, attention) for window in {None, a.sliding_window}}
    # Whether a gradient is wanted of the layer's input.
    wanted = trained.embedding or (a.tie_word_embeddings and trained.head)
    layers, reached = [], a.num_hidden_layers
    for number in range(a.num_hidden_layers):
        is_sliding = a.layer_types is None or a.layer_types[number] == "sliding_attention"
        trains = trained.first_layer is not None and number >= trained.first_layer
        flops, wanted = _layer(
            layer,
            added,
            rank=trained.lora_rank,
            # One multiplication of all heads' queries with the keys they see; as many for their values.
            product=2 * a.num_attention_heads * a.head_dim * keys[a.sliding_window if is_sliding else None],
            trains=trains,
            wanted=wanted,
            is_backward=is_backward,
        )
        layers.append(flops)
        reached = min(reached, number) if wanted else reached
    head_trains = trained.head or (a.tie_word_embeddings and trained.embedding)
    times = 1 + is_backward * (int(wanted) + int(head_trains))
    return layers, 2.0 * times * a.vocab_size * a.hidden_size, reached


def _layer(
    layer: Iterable[Matrix],
    added: Iterable[Adapter],
    *,
    rank: int,
    product: float,
    trains: bool,
    wanted: bool,
    is_backward: bool,
) -> tuple[Flops, bool]:
    """FLOPs of one layer, and whether a gradient is wanted of its output."""
    adapted = {part for each in added for part in each.parts}
    entered = wanted or trains
    # Whether a gradient is wanted of each projection's output.
    q, k, v = (entered or name in adapted for name in ("q_proj", "k_proj", "v_proj"))
    attended = q or k or v
    middle = entered or attended or "o_proj" in adapted
    activated = middle or bool({"gate_proj", "up_proj"} & adapted)
    # Whether a gradient is wanted of what goes into each matrix.
    inputs = {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), entered),
        "o_proj": attended,
        **dict.fromkeys(("router", "gate_proj", "up_proj"), middle),
        "down_proj": activated,
    }
    by_role = {"attention": 0.0, "mlp": 0.0, "router": 0.0}
    for m in layer:
        times = 1 + is_backward * (int(trains) + int(inputs[m.name]))
        by_role[m.role] += 2 * times * m.inputs * m.outputs * m.used
    low_rank = 0.0
    for each in added:
        # The half that enters takes a gradient of its weight always, the half that leaves also one of its input.
        down = 1 + is_backward * (1 + int(inputs[each.parts[0]]))
        up = 1 + is_backward * 2
        low_rank += 2 * rank * (down * each.inputs + up * each.outputs) * each.used
    # Queries by keys gives a gradient to each of the two, weights by values likewise.
    products = 2 + is_backward * (int(q) + int(k) + int(q or k) + int(v))
    return Flops(scores=products * product, adapters=low_rank, **by_role), activated or "down_proj" in adapted


def _keys(sequence: int, window: int | None, attention: Attention) -> float:
    return mean_visible_keys(sequence, window) if attention == "causal" else float(sequence)


def _sum(parts: Iterable[Flops]) -> Flops:
    rows = list(parts)
    return Flops(**{f.name: sum(getattr(row, f.name) for row in rows) for f in fields(Flops)})
