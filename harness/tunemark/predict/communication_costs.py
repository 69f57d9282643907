"""Seconds of communication in a training step: of a layer's ranks, of data-parallel ranks, between stages, to the host.

Sources. Tensor parallelism: Shoeybi et al. 2019, section 3. Sharding of training states: Rajbhandari et al. 2020.
Collectives: `hardware_rates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.attention_costs import AttentionCost
from tunemark.predict.hardware_rates import collective_seconds, exchange_seconds
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.rank_shares import LayerShape, count_inner_ranks
from tunemark.predict.worker_step_costs import PRECISION_BYTES

# Bytes of gradients that are sent together: between torch's 25 MB and Megatron's 40 million parameters; in Megatron for
# each replica a million parameters (distributed_data_parallel_config.py).
_BUCKET_BYTES, _MEGATRON_BUCKET_BYTES = 100e6, 4e6


def value_bytes(work: Workload) -> tuple[float, float]:
    """Bytes of one value of the hidden state when ranks exchange it: (forward, backward)."""
    if work.stack.own:
        wide, narrow = PRECISION_BYTES[work.stack.own]
        return narrow, wide
    return (4.0, 4.0) if work.precision in ("fp32", "tf32") else (2.0, 2.0)


def is_alternate(work: Workload, layout: RankLayout) -> bool:
    return layout.recompute == "selective" and work.stack.selective == "alternate"


@dataclass(frozen=True, slots=True)
class _LayerCollectives:
    """Exposed seconds and bytes of a layer's collectives. count: those of tensor parallelism, in all passes."""

    seconds: float
    sent_bytes: float
    count: float


def compute_layer_collectives(
    work: Workload,
    layout: RankLayout,
    device: DeviceFacts,
    shape: LayerShape,
    attention: AttentionCost,
    products_s: Sequence[float],
) -> _LayerCollectives:
    """The collectives of a layer. products_s: seconds of its matrix products, which hide a part of them."""
    a, e, stack = work.architecture, device.efficiency, work.stack
    t, tokens = layout.tensor, shape.tokens
    # Tensor parallelism: an all-reduce (or an all-gather and a reduce-scatter of the same bytes) after attention and
    # after the MLP, forward and backward (Shoeybi et al. 2019, section 3); full recomputation repeats the forward's.
    payload = sum(value_bytes(work)) / 2.0 * tokens * shape.hidden
    reduce_s = collective_seconds(device, size=t, stride=1, payload_bytes=payload, kind="all_reduce")
    # "alternate" gathers the inputs of every second product again; outputs that were scattered are kept.
    repeats = {"none": 0.0, "selective": float(is_alternate(work, layout)), "full": 2.0}[layout.recompute]
    count = 4.0 + layout.recomputed * repeats
    if stack.copied_collectives and t > 1:
        # Gather and scatter each copy the payload.
        reduce_s += 2.0 * 2.0 * payload / (device.bandwidth_bytes_per_s * e.memory)
    # A mixture sums the outputs of divided experts over their own tensor ranks, each token as often as it is routed.
    parts, used = count_inner_ranks(a, layout), a.num_experts_per_tok or 1
    inner_s = reduce_s
    if a.num_local_experts:
        inner_s = collective_seconds(device, size=parts, stride=1, payload_bytes=used * payload, kind="all_reduce")
    seconds = count * (reduce_s + inner_s) / 2.0
    sent = count * payload * ((t - 1) / t + (used if a.num_local_experts else 1) * (parts - 1) / parts)
    if stack.tensor_overlap and t > 1:
        # The gather before a product and the scatter after it overlap with it, at most for as long as it takes.
        sums = (reduce_s, reduce_s, inner_s, inner_s)
        hidden = sum(min(each / 2.0, one) for each, one in zip(sums, products_s, strict=True))
        seconds -= e.tensor_hidden * count / 2.0 * hidden
    if layout.context > 1:
        # Keys and values pass around the ring, forward once, backward with their gradients (Liu et al. 2023).
        pairs = 2.0 * tokens * 2 * shape.keys
        once = collective_seconds(device, size=layout.context, stride=t, payload_bytes=pairs * layout.context)
        passing = 3.0 * once
        # Each block of attention hides the next block's arrival.
        seconds += max(passing - (attention.forward + attention.backward), 0.1 * passing)
        sent += 3.0 * pairs * (layout.context - 1)
    if layout.expert > 1:
        # Tokens are sent to their experts and back, forward and backward, by each tensor rank its own; ranks of a group
        # lie as close as those that divide an expert allow (Megatron's order: tensor, expert, data).
        routed_bytes = 2.0 * tokens * used * shape.hidden / (t if layout.sequence_parallel else 1)
        sending = 4.0 + (2.0 * layout.recomputed if layout.recompute == "full" else 0.0)
        seconds += (
            (1.0 - e.expert_hidden)
            * sending
            * exchange_seconds(device, size=layout.expert, stride=parts, token_bytes=routed_bytes / used, used=used)
        )
        sent += 4.0 * routed_bytes * (layout.expert - 1) / layout.expert
    return _LayerCollectives(seconds, sent, count)


def compute_data_seconds(
    work: Workload, layout: RankLayout, device: DeviceFacts, own: float, accumulation: int, compute: float
) -> tuple[float, float]:
    """Exposed seconds of data-parallel communication in a step, and bytes sent by a rank."""
    e, stack = device.efficiency, work.stack
    replicas = layout.data * layout.context
    if replicas == 1:
        return 0.0, 0.0
    stride = layout.tensor
    shard = layout.shard if layout.zero else 1
    low, trained = stack.gather_bytes * own, own * work.trained_fraction
    reduce_bytes = stack.reduce_bytes * trained
    # fp32 training gathers fp32 parameters.
    if work.precision in ("fp32", "tf32"):
        low, reduce_bytes = 4.0 * own, 4.0 * trained
    sent = 0.0
    gather = scatter = reduce_s = 0.0
    # Sharded parameters travel by layer, everything else in buckets.
    layers = work.architecture.num_hidden_layers / layout.pipeline
    bucket = max(_BUCKET_BYTES, _MEGATRON_BUCKET_BYTES * replicas * stack.scattered_messages)
    buckets = max(1.0, reduce_bytes / bucket)
    if layout.zero == 3 and shard > 1:
        gathers = 2.0 if layout.reshard else 1.0
        # A stage that keeps its gathered parameters does so for all micro-batches and scatters summed gradients once;
        # our own worker always scatters the sum over all micro-batches.
        kept = layout.pipeline > 1 and not layout.reshard
        times = 1 if kept and not stack.own else accumulation
        scatters = 1 if kept or stack.own else accumulation
        gather = (
            gathers * times * collective_seconds(device, size=shard, stride=stride, payload_bytes=low, parts=layers)
        )
        scatter = scatters * collective_seconds(
            device, size=shard, stride=stride, payload_bytes=reduce_bytes, parts=layers
        )
        sent += (times * gathers * low + scatters * reduce_bytes) * (shard - 1) / shard
        window = compute * times / accumulation
    else:
        if layout.zero in (1, 2) and shard > 1:
            gather = collective_seconds(device, size=shard, stride=stride, payload_bytes=low, parts=buckets)
            reduce_s = collective_seconds(device, size=shard, stride=stride, payload_bytes=reduce_bytes, parts=buckets)
            sent += (low + reduce_bytes) * (shard - 1) / shard
        else:
            reduce_s = collective_seconds(
                device, size=replicas, stride=stride, payload_bytes=reduce_bytes, kind="all_reduce", parts=buckets
            )
            sent += 2.0 * reduce_bytes * (replicas - 1) / replicas
        # Gradients are reduced during the last micro-batch's backward pass, parameters gathered in its forward pass.
        window = compute / accumulation
    if 1 < shard < replicas:
        # In groups smaller than all replicas, each group holds all that is sharded, and sums go on between groups.
        outer = replicas // shard
        reduce_s += collective_seconds(
            device,
            size=outer,
            stride=stride * shard,
            payload_bytes=reduce_bytes / shard,
            kind="all_reduce",
            parts=buckets,
        )
        sent += 2.0 * reduce_bytes / shard * (outer - 1) / outer
    total = gather + scatter + reduce_s
    if not stack.data_overlap:
        return total, sent
    if stack.gathers_late and layout.zero in (1, 2):
        return gather + max(reduce_s - e.data_hidden * window, (1.0 - e.data_hidden) * reduce_s), sent
    return max(total - e.data_hidden * window, (1.0 - e.data_hidden) * total), sent


def compute_offloading_seconds(
    work: Workload, layout: RankLayout, device: DeviceFacts, accumulation: int, compute: float
) -> float:
    """Exposed seconds of moving activations to host memory and back: overlapped with kernels as gradients are, except
    by our worker, whose copies are in the stream that computes."""
    link = device.host_bytes_per_s or device.bus_bytes_per_s
    if not layout.offloaded or not link:
        return 0.0
    total = 2.0 * layout.offloaded * accumulation / link
    hidden = 0.0 if work.stack.own else device.efficiency.data_hidden
    return max(total - hidden * compute, (1.0 - hidden) * total)
