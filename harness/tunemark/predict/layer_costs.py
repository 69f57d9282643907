"""Time and FLOPs of one layer and of a model's two ends, for one micro-batch on one rank.

Sources. Matrix FLOPs: Chowdhery et al. 2022 ("PaLM"), appendix B. Recomputation, sequence parallelism: Korthikanti et
al. 2022, sections 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunemark.physics.flops import magnitude_shapes
from tunemark.physics.parameters import lora_adapters
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.attention_costs import (
    attention_precision,
    compute_attention_cost,
    scale_attention,
    traced_layer_flops,
)
from tunemark.predict.communication_costs import compute_layer_collectives, is_alternate, value_bytes
from tunemark.predict.hardware_rates import collective_seconds
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.matrix_products import matmul_seconds
from tunemark.predict.rank_shares import find_layer_shape

# Kernel launches of one layer's forward pass, framework overhead included; the backward pass has twice as many.
# Counted in eager PyTorch modules of a decoder layer; fused software stacks launch about half.
_LAYER_LAUNCHES, _FUSED_LAUNCHES = 30, 16
# Additional launches under tensor parallelism: launch-bound published rows of one and of four ranks differ by less.
_TENSOR_LAUNCHES = 1
# Forward launches of the embedding (with positions and dropout) or of the head (with the last norm and the loss), and
# of a micro-batch's share of the training loop.
_END_LAUNCHES = 20
# A LoRA adapter's: two products and a scaled sum.
_ADAPTER_LAUNCHES = 3
# A mixture's: the router with its top-k and losses, sorting tokens by expert and back; each local expert's products.
_ROUTER_LAUNCHES, _EXPERT_LAUNCHES = 24, 1
# Software whose layers are transformers' modules.
_TRANSFORMERS = ("hf", "deepspeed")
# Modules of a layer whose parameters an engine in Python handles: norms and matrices.
_HOOKED_MODULES = 9


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer for one micro-batch on one rank. forward, backward: seconds of kernels without collectives.
    flops_again: FLOPs of recomputation. collective: seconds of collectives in all passes; passes_sent: their number in
    units of the forward pass's."""

    forward: float
    backward: float
    recompute: float
    flops_forward: float
    flops_attention: float
    flops_again: float
    collective: float
    passes_sent: float
    collective_bytes: float
    host_forward: float
    host_backward: float


@dataclass(frozen=True, slots=True)
class EndCost:
    """Cost of the embedding and of the head with its loss, for one micro-batch on one rank: seconds of kernels and of
    collectives. host_s: to launch one of the two forward. head_flops: of a forward pass. sent_bytes: of both."""

    embed_forward: float = 0.0
    embed_backward: float = 0.0
    head_forward: float = 0.0
    head_backward: float = 0.0
    embed_collective: float = 0.0
    head_collective: float = 0.0
    head_flops: float = 0.0
    sent_bytes: float = 0.0
    host_s: float = 0.0


NO_END_COST = EndCost()


# Long: one sum of seconds and FLOPs, product by product.
def compute_layer_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> LayerCost:
    a, e, stack, p = work.architecture, device.efficiency, work.stack, work.precision
    t, h = layout.tensor, a.hidden_size
    shape = find_layer_shape(a, layout, tokens)
    gates = 2 if a.gated_mlp else 1
    products: list[_Product] = [
        (tokens, h, shape.queries + 2 * shape.keys, 1.0),
        (tokens, shape.queries, h, 1.0),
        (shape.routed, h, gates * shape.inner, shape.experts),
        (shape.routed, shape.inner, h, shape.experts),
    ]
    each = [matmul_seconds(device, p, m, k, n, count) for m, k, n, count in products]
    flops = _product_flops(products)
    attention = compute_attention_cost(work, layout, device, tokens)
    if a.traced is not None:
        # The dimensions are those of a similar plain decoder, and the products' FLOPs are the model's own.
        own, scores = (some * tokens / t for some in traced_layer_flops(a, work.sequence))
        each, flops = [seconds * own / flops for seconds in each], own
        attention = scale_attention(attention, scores)
    matrices = sum(each)
    shared = t if layout.sequence_parallel else 1
    # Forward traffic of elementwise kernels: norms, residuals, rotary positions, and the activation's input and output;
    # in a gated MLP also its product with the other half, a separate kernel where nothing is fused.
    gate = (6.0 if stack.fused else 10.0) if a.gated_mlp else 4.0
    streamed = stack.stream_bytes * h / shared + 2.0 * (shape.queries + 2 * shape.keys)
    light = tokens * streamed + gate * shape.routed * shape.experts * shape.inner
    if a.num_local_experts:
        light += e.dispatch_bytes * h * shape.routed * shape.experts
    rate = device.bandwidth_bytes_per_s * e.memory
    light_s = light / rate
    adapters = _adapter_cost(work, layout, device, tokens)
    # Frozen weights of few bits are expanded to 16 before each product.
    expanding_s = 0.0
    if stack.base_bits:
        expanding_s = sum(k * n * count for _, k, n, count in products) * stack.expanded_bytes / rate
    forward = matrices + (attention.forward + light_s) + adapters.forward + expanding_s + _norm_seconds(work, device)
    backward = (2.0 if work.trained_fraction >= 1.0 else 1.0) * matrices + attention.backward + 2.0 * light_s
    backward += 2.0 * adapters.forward + expanding_s
    # Selective recomputation: only the scores where they are stored (Korthikanti et al. 2022), else everything except
    # outputs of matrix products; "alternate": of a layer's products (queries, keys, values, output, gate, up, down) the
    # even ones, and no attention.
    again, flops_again = 0.0, 0.0
    if layout.recompute == "full":
        again, flops_again = forward, flops + attention.flops
    elif is_alternate(work, layout):
        even: list[_Product] = [
            (tokens, h, shape.keys, 1.0),
            (tokens, shape.queries, h, 1.0),
            (shape.routed, h, shape.inner, shape.experts) if a.gated_mlp else products[3],
        ]
        again = light_s + sum(matmul_seconds(device, p, m, k, n, count) for m, k, n, count in even)
        flops_again = _product_flops(even)
    elif layout.recompute == "selective":
        again, flops_again = attention.forward + (light_s if stack.flash_attention else 0.0), attention.flops
    collectives = compute_layer_collectives(work, layout, device, shape, attention, each)
    operations = float(_FUSED_LAUNCHES if stack.fused else _LAYER_LAUNCHES)
    operations += (_TENSOR_LAUNCHES if t > 1 else 0) + attention.launches
    if a.num_local_experts:
        operations += _ROUTER_LAUNCHES + _EXPERT_LAUNCHES * math.ceil(shape.experts)
    operations = stack.launches * (e.eager_launches if stack.framework in _TRANSFORMERS else 1.0) * operations
    operations += adapters.launches + (7 if stack.base_bits else 0)
    # Hooks run for each parameter: where all are sharded, in every pass, else when its gradient is there.
    hooks = e.hook_launches * (_HOOKED_MODULES + adapters.count) if stack.framework == "deepspeed" else 0.0
    operations += hooks if layout.zero == 3 and layout.shard > 1 else 0.0
    repeated = layout.recomputed if layout.recompute == "full" else 0.0
    return LayerCost(
        forward=forward,
        backward=backward,
        recompute=layout.recomputed * again,
        flops_forward=flops,
        flops_attention=attention.flops,
        flops_again=layout.recomputed * flops_again,
        collective=collectives.seconds,
        passes_sent=collectives.count / 2.0,
        collective_bytes=collectives.sent_bytes,
        host_forward=operations * e.host_s,
        host_backward=((2.0 + repeated) * operations + (0.0 if layout.zero == 3 else hooks)) * e.host_s,
    )


def _product_flops(products: Sequence[_Product]) -> float:
    return sum(2.0 * m * k * n * count for m, k, n, count in products)


def compute_end_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> EndCost:
    a, e = work.architecture, device.efficiency
    rate = device.bandwidth_bytes_per_s * e.memory
    vocab = a.vocab_size / layout.tensor
    embed = 4.0 * tokens * a.hidden_size / rate
    product = matmul_seconds(device, attention_precision(device, work.precision), tokens, a.hidden_size, vocab)
    # Bytes per logit: cast to 32 bits, log-softmax read and written; backward: zeros, both again, gradient, its cast.
    scored = a.vocab_size if work.stack.scores_gathered else vocab
    moved = (6.0, 6.0) if work.stack.fused else (16.0, 22.0)
    if work.stack.logit_bytes:
        moved = (work.stack.logit_bytes / 2.0, work.stack.logit_bytes / 2.0)
    loss, loss_backward = (x * tokens * scored / rate for x in moved)
    narrow, wide = value_bytes(work)
    payload = (narrow + wide) / 2.0 * tokens * a.hidden_size
    reduce_s = collective_seconds(device, size=layout.tensor, stride=1, payload_bytes=payload, kind="all_reduce")
    # Logits that every rank gathers are sent once; their gradients are already on every rank.
    scores = narrow * tokens * a.vocab_size if work.stack.scores_gathered else 0.0
    gather_s = collective_seconds(device, size=layout.tensor, stride=1, payload_bytes=scores) if scores else 0.0
    return EndCost(
        embed_forward=embed,
        embed_backward=embed,
        head_forward=product + loss,
        head_backward=2.0 * product + loss_backward,
        embed_collective=reduce_s,
        head_collective=reduce_s + gather_s / 2.0,
        head_flops=2.0 * tokens * a.hidden_size * vocab,
        sent_bytes=(4.0 * payload + scores) * (layout.tensor - 1) / layout.tensor,
        host_s=_END_LAUNCHES * e.host_s * (_FUSED_LAUNCHES / _LAYER_LAUNCHES if work.stack.fused else 1.0),
    )


# A matrix product m x k by k x n, and how often it is computed.
_Product = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _AdapterCost:
    """Forward seconds of a layer's LoRA adapters, and the operations that they launch."""

    forward: float = 0.0
    launches: float = 0.0
    count: int = 0


_NO_ADAPTERS = _AdapterCost()


def _adapter_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> _AdapterCost:
    """Adapters add two thin products to each matrix that they are on: they read its input (once more for dropout, where
    nothing is fused) and add to its output, 2 bytes a value each time. Hu et al. 2021, "LoRA", section 4.1."""
    trained = work.trained
    if not trained.lora_rank or work.stack.own:
        return _NO_ADAPTERS
    is_fused, t = work.stack.fused, layout.tensor
    found = 0.0
    adapters = lora_adapters(work.architecture, trained.lora_targets)
    for each in adapters:
        used = each.used if each.copies > 1 else 1
        moved = (2.0 if is_fused else 7.0) * each.inputs / t + (3.0 if is_fused else 8.0) * each.outputs / t
        found += used * tokens * (moved + 4.0 * trained.lora_rank)
    rate = device.bandwidth_bytes_per_s * device.efficiency.memory
    launches = len(adapters) * (3.0 if is_fused else _ADAPTER_LAUNCHES)
    return _AdapterCost(found / rate, launches, len(adapters))


def _norm_seconds(work: Workload, device: DeviceFacts) -> float:
    """Seconds that the norms of DoRA's matrices take in a forward pass of an average layer: two products with a thin
    matrix, and six passes in 32 bits over the whole one (B A, its multiple, the sum with W, their norm)."""
    a, rank, found = work.architecture, work.trained.lora_rank, 0.0
    rate = device.bandwidth_bytes_per_s * device.efficiency.memory
    for inputs, outputs, times in magnitude_shapes(a, work.trained):
        products = matmul_seconds(device, work.precision, inputs, inputs, rank, 1.0)
        products += matmul_seconds(device, work.precision, inputs, rank, outputs, 1.0)
        found += times * (products + 24.0 * inputs * outputs / rate)
    return found / max(a.num_hidden_layers, 1)
