"""Parameter counts of a decoder by role, from its dimensions.

Sources: Touvron et al. 2023, "LLaMA", section 2.2 (gated MLP, RMSNorm); Ainslie et al. 2023, "GQA"; Jiang et al. 2024,
"Mixtral of Experts", section 2; Gemma Team 2024, "Gemma 2", section 2 (four norms); Radford et al. 2019, "GPT-2"
(biases, learned positions); Hu et al. 2021, "LoRA", section 4.1. The counts are those of transformers' modules.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tunemark.physics.traced_counts import adaptable_names, count_adapters, count_by_role, count_matrices
from tunemark.plugin.descriptors import Architecture

# peft's default targets for Llama, Mistral, Mixtral, Gemma 2, Qwen2 and Qwen3:
# huggingface/peft @00073fe, src/peft/utils/constants.py, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.
LORA_TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCounts:
    """Counts by role, each parameter once: `head` is 0 where it is tied to the embedding.

    position: a learned table. mlp: of all experts; mlp_active: of the experts that one token uses. bias: of projections
    and of the MLP; norm includes its own biases.
    """

    embedding: int
    position: int
    attention: int
    mlp: int
    mlp_active: int
    router: int
    bias: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        return (
            self.embedding + self.position + self.attention + self.mlp + self.router + self.bias + self.norm + self.head
        )

    @property
    def active(self) -> int:
        """All but the experts that a token does not use: the "active parameters" of a mixture of experts."""
        return self.total - self.mlp + self.mlp_active


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMatrix:
    """One kind of weight matrix of a layer. copies: one for each expert; used: how many of them one token uses."""

    name: str
    role: Literal["attention", "mlp", "router"]
    inputs: int
    outputs: int
    copies: int = 1
    used: int = 1


def layer_matrices(a: Architecture) -> tuple[WeightMatrix, ...]:
    """The matrices of one layer, in the order of a forward pass, under the names of transformers' Llama.

    Matrices that some models fuse (Phi-3's and GPT-2's queries, keys and values) are separate here.
    """
    queries, keys = a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim
    hidden, inner = a.hidden_size, a.intermediate_size
    copies, used = a.num_local_experts or 1, a.num_experts_per_tok or 1
    gate = [WeightMatrix(name="gate_proj", role="mlp", inputs=hidden, outputs=inner, copies=copies, used=used)]
    return (
        WeightMatrix(name="q_proj", role="attention", inputs=hidden, outputs=queries),
        WeightMatrix(name="k_proj", role="attention", inputs=hidden, outputs=keys),
        WeightMatrix(name="v_proj", role="attention", inputs=hidden, outputs=keys),
        WeightMatrix(name="o_proj", role="attention", inputs=queries, outputs=hidden),
        *([WeightMatrix(name="router", role="router", inputs=hidden, outputs=copies)] if a.num_local_experts else []),
        *(gate if a.gated_mlp else []),
        WeightMatrix(name="up_proj", role="mlp", inputs=hidden, outputs=inner, copies=copies, used=used),
        WeightMatrix(name="down_proj", role="mlp", inputs=inner, outputs=hidden, copies=copies, used=used),
    )


@functools.lru_cache(maxsize=256)
def count_parameters(a: Architecture) -> ParameterCounts:
    """Count the parameters of `a`: by its dimensions, or those that were found in the model itself."""
    if a.traced is not None:
        by_role, active_mlp = count_by_role(a.traced)
        return ParameterCounts(**by_role, mlp_active=active_mlp)
    layers, layer = a.num_hidden_layers, layer_matrices(a)
    sizes = {
        role: sum(m.inputs * m.outputs * m.copies for m in layer if m.role == role)
        for role in ("attention", "mlp", "router")
    }
    active = sum(m.inputs * m.outputs * m.used for m in layer if m.role == "mlp")
    biased = [m for m in layer if _has_bias(a, m)]
    # A LayerNorm has a weight and a bias. One more norm follows the last layer.
    norm = (layers * a.norms_per_layer + 1) * a.hidden_size * (2 if a.norm_bias else 1)
    heads = {"head": (1, 1), "projection": (a.num_attention_heads, a.num_key_value_heads)}
    qk_norm = sum(heads[a.qk_norm]) * a.head_dim if a.qk_norm else 0
    embedding = a.vocab_size * a.hidden_size
    return ParameterCounts(
        embedding=embedding,
        position=a.max_position_embeddings * a.hidden_size if a.learned_positions else 0,
        attention=layers * sizes["attention"],
        mlp=layers * sizes["mlp"],
        mlp_active=layers * active,
        router=layers * sizes["router"],
        bias=layers * sum(m.outputs * m.copies for m in biased),
        norm=norm + layers * qk_norm,
        head=0 if a.tie_word_embeddings else embedding,
    )


# Many parameters: each is one column of a published table, given by name.
def make_architecture(
    *,
    layers: int,
    hidden: int,
    intermediate: int,
    is_gated: bool,
    heads: int,
    vocab: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    window: int | None = None,
    experts: int | None = None,
    experts_per_token: int | None = None,
    is_tied: bool = False,
    sequence: int = 1,
) -> Architecture:
    """An architecture of which only the dimensions are known, as from a row of a table.

    kv_heads: None means as many as heads. head_dim: None means hidden / heads, which must divide. sequence: the longest
    known to be trained. Biases, learned positions and the kind of norm are unknown and omitted, together about a
    thousandth of the parameters and none of the FLOPs. Raises ValueError where the dimensions contradict each other.
    """
    sizes = {"layers": layers, "hidden": hidden, "intermediate": intermediate, "heads": heads, "vocab": vocab}
    bad = [f"{name} {value}" for name, value in sizes.items() if value < 1]
    if bad:
        raise ValueError(f"dimensions must be 1 or more, not {', '.join(bad)}")
    if head_dim is None and hidden % heads:
        raise ValueError(f"{heads} heads do not divide a hidden size of {hidden}, and no head_dim is given")
    kv = heads if kv_heads is None else kv_heads
    if kv < 1 or heads % kv:
        raise ValueError(f"{kv} key-value heads do not divide {heads} heads")
    return Architecture(
        model_type="dimensions",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=hidden // heads if head_dim is None else head_dim,
        max_position_embeddings=sequence,
        sliding_window=window,
        tie_word_embeddings=is_tied,
        num_local_experts=experts,
        num_experts_per_tok=experts_per_token,
        gated_mlp=is_gated,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraAdapter:
    """A pair of low-rank matrices, inputs x rank and rank x outputs, added to one matrix of every layer.

    parts: the names of the matrices that it adapts, several where the model fuses them."""

    parts: tuple[str, ...]
    inputs: int
    outputs: int
    copies: int = 1
    used: int = 1


def lora_adapters(a: Architecture, targets: Iterable[str] = LORA_TARGETS) -> tuple[LoraAdapter, ...]:
    """LoRA's adapters in each layer, for targets under Llama's names or the model's own.

    A fused matrix has one adapter with a shared input matrix: "qkv_proj" (Phi-3), "c_attn" (GPT-2), "W_pack"
    (Baichuan), "gate_up_proj" (Phi-3). "c_proj" is two matrices, as in GPT-2, whose attention and MLP both end in one;
    "c_fc" is up_proj. Every expert has its own adapter. ValueError for a name that the layer does not have.
    """
    layer = {m.name: m for m in layer_matrices(a)}
    found: dict[tuple[str, ...], LoraAdapter] = {}
    for target in targets:
        for parts in _FUSED.get(target, ((target,),)):
            missing = [name for name in parts if name not in layer]
            if missing:
                raise ValueError(f"no matrix {target!r} to adapt; a layer has {', '.join(layer)}")
            first = layer[parts[0]]
            outputs = sum(layer[name].outputs for name in parts)
            found[parts] = LoraAdapter(
                parts=parts, inputs=first.inputs, outputs=outputs, copies=first.copies, used=first.used
            )
    return tuple(found.values())


def count_lora_parameters(
    a: Architecture, rank: int, targets: Iterable[str] = LORA_TARGETS, *, magnitudes: bool = False
) -> int:
    """The parameters that LoRA trains: rank · (inputs + outputs) for each adapted matrix, all layers.

    targets: by default the query and value projections, as in peft for Llama-like models. magnitudes: DoRA's, one more
    for each output (Liu et al. 2024, "DoRA", section 4.1: a vector of as many entries as W has columns).
    Source: Hu et al. 2021, "LoRA", sections 4.1 and 4.2 (without biases, norms and the head).
    """
    if a.traced is not None:
        return count_adapters(a.traced, rank, targets, magnitudes=magnitudes)
    each = ((rank * (x.inputs + x.outputs) + magnitudes * x.outputs) * x.copies for x in lora_adapters(a, targets))
    return a.num_hidden_layers * sum(each)


def adaptable_matrices(a: Architecture) -> tuple[str, ...]:
    """The matrices of a layer that can be adapted, each once, under the names of the model's module. A mixture's
    experts and router are not among them: transformers stores them as plain tensors since 5.0."""
    if a.traced is not None:
        return adaptable_names(a.traced)
    if a.adaptable_matrices is not None:
        return a.adaptable_matrices
    adaptable = ("attention",) if a.num_local_experts else ("attention", "mlp")
    return tuple(m.name for m in layer_matrices(a) if m.role in adaptable)


def count_layer_matrices(a: Architecture) -> int:
    """The weights of the matrices of all layers that can be adapted, which are those that QLoRA quantizes."""
    if a.traced is not None:
        return count_matrices(a.traced)
    pairs = lora_adapters(a, adaptable_matrices(a))
    return a.num_hidden_layers * sum(x.inputs * x.outputs * x.copies for x in pairs)


_FUSED: dict[str, tuple[tuple[str, ...], ...]] = {
    "qkv_proj": (("q_proj", "k_proj", "v_proj"),),
    "c_attn": (("q_proj", "k_proj", "v_proj"),),
    "W_pack": (("q_proj", "k_proj", "v_proj"),),
    "gate_up_proj": (("gate_proj", "up_proj"),),
    "c_fc": (("up_proj",),),
    "c_proj": (("o_proj",), ("down_proj",)),
}


def _has_bias(a: Architecture, m: WeightMatrix) -> bool:
    if m.role == "mlp":
        return a.mlp_bias
    return m.role == "attention" and (a.attention_bias or (a.qkv_bias and m.name != "o_proj"))
