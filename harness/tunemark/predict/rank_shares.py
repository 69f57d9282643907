"""What one rank has of a model: layers of its stage, widths and parameters."""

from __future__ import annotations

from dataclasses import dataclass

from tunemark.physics.parameters import count_parameters
from tunemark.plugin.descriptors import Architecture
from tunemark.predict.layout import RankLayout, Workload


def count_inner_ranks(a: Architecture, layout: RankLayout) -> int:
    """Ranks that divide the width of the MLP, in a mixture that of each expert."""
    return (layout.expert_tensor or layout.tensor) if a.num_local_experts else layout.tensor


def divide_layers(work: Workload, layout: RankLayout) -> list[float]:
    """Layers of each pipeline stage. Where `layers` does not divide evenly, the embedding and the head count as a layer
    each if that does (Megatron's account_for_embedding_in_pipeline_split); else as even as whole layers allow."""
    layers, p = work.architecture.num_hidden_layers, layout.pipeline
    if p == 1:
        return [float(layers)]
    if layers % p == 0:
        return [layers / p] * p
    if (layers + 2) % p == 0:
        n = (layers + 2) // p
        return [n - 1.0, *([float(n)] * (p - 2)), n - 1.0]
    low, more = divmod(layers, p)
    # The middle stages take the surplus: the first and last have the embedding and the head.
    order = sorted(range(p), key=lambda i: min(i, p - 1 - i), reverse=True)
    wide = set(order[:more])
    return [float(low + (i in wide)) for i in range(p)]


def count_rank_parameters(a: Architecture, layout: RankLayout, stages: list[float]) -> float:
    """Parameters of the rank that has most, before data-parallel sharding."""
    return sum(split_rank_parameters(a, layout, stages))


def split_rank_parameters(a: Architecture, layout: RankLayout, stages: list[float]) -> tuple[float, float]:
    """The same: (of experts, of everything else)."""
    c = count_parameters(a)
    whole = c.attention + c.router + c.bias + (0.0 if a.num_local_experts else c.mlp)
    per_layer = whole / a.num_hidden_layers / layout.tensor + c.norm / (a.num_hidden_layers + 1)
    experts = 0.0
    if a.num_local_experts:
        experts = c.mlp / a.num_hidden_layers / (layout.expert * count_inner_ranks(a, layout))
    ends = (c.embedding + c.position) / layout.tensor, (c.head or c.embedding) / layout.tensor
    if layout.pipeline == 1:
        return stages[0] * experts, stages[0] * per_layer + ends[0] + c.head / layout.tensor
    candidates = [(stages[0], ends[0]), (stages[-1], ends[1]), (max(stages), 0.0)]
    n, more = max(candidates, key=lambda each: each[0] * (per_layer + experts) + each[1])
    return n * experts, n * per_layer + more


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Sizes of one layer's work for one micro-batch on one rank. queries, keys: widths of its heads. inner: width of
    its part of the MLP. routed: tokens of each of its `experts`."""

    tokens: int
    hidden: int
    queries: float
    keys: float
    inner: float
    routed: float
    experts: float


def find_layer_shape(a: Architecture, layout: RankLayout, tokens: int) -> LayerShape:
    t, experts = layout.tensor, a.num_local_experts or 1
    routed = float(tokens)
    if experts > 1:
        # Each expert computes its share of the tokens of all ranks that hold experts together.
        routed = tokens * (a.num_experts_per_tok or 1) / experts * layout.expert * count_inner_ranks(a, layout) / t
    return LayerShape(
        tokens=tokens,
        hidden=a.hidden_size,
        queries=a.num_attention_heads * a.head_dim / t,
        keys=max(a.num_key_value_heads / t, 1.0) * a.head_dim,
        inner=a.intermediate_size / count_inner_ranks(a, layout),
        routed=routed,
        experts=experts / layout.expert,
    )
