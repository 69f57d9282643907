"""Time and FLOPs of attention between its matrix products. Fused attention: Dao et al. 2022."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunemark.physics.flops import mean_visible_keys, train_flops_by_role
from tunemark.physics.traced_counts import computed_share
from tunemark.plugin.descriptors import Architecture
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.matrix_products import LOW_PRECISIONS, find_peak_name, matmul_seconds

# Additional launches where the softmax of the attention scores is not one kernel: cast, scale, mask and cast.
_SOFTMAX_LAUNCHES = 4


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Seconds and forward FLOPs of attention between its matrix products, and the launches that it adds."""

    forward: float
    backward: float
    flops: float
    launches: int = 0


def compute_attention_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> AttentionCost:
    a, e, stack = work.architecture, device.efficiency, work.stack
    heads = a.num_attention_heads / layout.tensor
    batch = tokens * layout.context / work.sequence
    wide = attention_precision(device, work.precision)
    if stack.flash_attention:
        seen = mean_visible_keys(work.sequence, a.sliding_window)
        flops = 4.0 * batch * (work.sequence / layout.context) * seen * heads * a.head_dim
        # Short sequences and narrow heads fill tiles of 128 less well.
        ramp = 1.0 + 256.0 / (work.sequence / layout.context) + 16.0 / a.head_dim
        share = e.attention * (1.0 if stack.native_attention else e.attention_portable)
        forward = flops * ramp / (device.peak_flops[find_peak_name(wide)] * share)
        # The backward pass recomputes the scores: 5 products to the forward's 2 (Dao et al. 2022, appendix B).
        return AttentionCost(forward, 2.5 * forward, flops)
    # Besides the matrix products: softmax reads and writes the scores in 16 bits, dropout reads and writes them and a
    # mask of one byte; backward does the same, softmax with its own output.
    rate = device.bandwidth_bytes_per_s * e.memory
    scores = batch * heads * (work.sequence / layout.context) * work.sequence
    products = 2.0 * matmul_seconds(device, wide, batch * heads * work.sequence, a.head_dim, work.sequence)
    # The fused softmax works on four heads at a time (Megatron-LM, fused_softmax.py); where the number of heads is no
    # multiple of four, casts, scale, mask and softmax are separate kernels in 32 bits.
    is_fused = batch * heads % 4 == 0 and work.sequence <= 2048
    return AttentionCost(
        products + (9.0 if is_fused else 38.0) * scores / rate,
        2.0 * products + (11.0 if is_fused else 46.0) * scores / rate,
        4.0 * scores * a.head_dim,
        0 if is_fused else _SOFTMAX_LAUNCHES,
    )


def scale_attention(cost: AttentionCost, flops: float) -> AttentionCost:
    """The cost of attention with other FLOPs at the same rate."""
    share = flops / cost.flops
    return replace(cost, forward=cost.forward * share, backward=cost.backward * share, flops=flops)


def traced_layer_flops(a: Architecture, sequence: int) -> tuple[float, float]:
    """Forward FLOPs per slot of an average layer: of all but its scores, experts that are computed and not used
    included; of its scores."""
    assert a.traced is not None
    by, passes = train_flops_by_role(a, sequence), 3.0 * a.num_hidden_layers
    return (by.total - by.scores - by.head) / passes * computed_share(a.traced, sequence), by.scores / passes


def attention_precision(device: DeviceFacts, precision: str) -> str:
    """The precision of attention and of the head, which are never multiplied in 8 or 4 bits."""
    return "bf16" if precision in LOW_PRECISIONS else precision
