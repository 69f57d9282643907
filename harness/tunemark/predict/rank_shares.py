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
    each = [split_stage_parameters(a, layout, stages, stage) for stage in find_unlike_stages(stages)]
    return max(each, key=sum)


def split_stage_parameters(a: Architecture, layout: RankLayout, stages: list[float], stage: int) -> tuple[float, float]:
    """Parameters of a rank of one stage, before data-parallel sharding: (of experts, of everything else)."""
    c = count_parameters(a)
    whole = c.attention + c.router + c.bias + (0.0 if a.num_local_experts else c.mlp)
    per_layer = whole / a.num_hidden_layers / layout.tensor + c.norm / (a.num_hidden_layers + 1)
    experts = 0.0
    if a.num_local_experts:
        experts = c.mlp / a.num_hidden_layers / (layout.expert * count_inner_ranks(a, layout))
    ends, is_last = 0.0, stage == len(stages) - 1
    if stage == 0:
        ends += c.embedding + c.position
    if is_last:
        # A head that is tied to the embedding of another stage is a copy.
        ends += c.head or (c.embedding if stage else 0.0)
    return stages[stage] * experts, stages[stage] * per_layer + ends / layout.tensor


def find_unlike_stages(stages: list[float]) -> list[int]:
    """The first stage, the last, and of the others the first that has most layers."""
    last = len(stages) - 1
    between = range(1, last)
    return sorted({0, last, *([max(between, key=stages.__getitem__)] if between else [])})


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
