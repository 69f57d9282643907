"""The analytic engine: step time and memory in closed formulas from dimensions, tens of microseconds a plan, no torch.

Sources. Matrix FLOPs: Chowdhery et al. 2022 ("PaLM"), appendix B. Activations, recomputation, sequence parallelism:
Korthikanti et al. 2022, sections 4 and 5. Sharding of training states: Rajbhandari et al. 2020. Pipelines: Narayanan et
al. 2021, section 2.2. Collectives: `hardware_rates`. Fused attention: Dao et al. 2022. A matrix product takes the
longer of its arithmetic and its memory traffic (Williams et al. 2009, "Roofline"), a layer the longer of its kernels
and their launches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from tunemark.physics.flops import magnitude_shapes, mean_visible_keys, train_flops_by_role
from tunemark.physics.parameters import lora_adapters
from tunemark.physics.traced_counts import computed_share
from tunemark.plugin.descriptors import Architecture
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionKind
from tunemark.predict.hardware_rates import collective_seconds, exchange_seconds, message_seconds
from tunemark.predict.layout import TORCH, RankLayout, Workload
from tunemark.predict.matrix_products import LOW_PRECISIONS, find_peak_name, matmul_seconds
from tunemark.predict.memory_model import predict_memory as predict_memory
from tunemark.predict.prediction import Prediction, StepSeconds
from tunemark.predict.prediction_bounds import find_spread
from tunemark.predict.rank_shares import count_inner_ranks, count_rank_parameters, divide_layers
from tunemark.predict.worker_step_costs import PRECISION_BYTES, compute_step_costs, has_step_costs

# Kernel launches of one layer's forward pass, framework overhead included; the backward pass has twice as many.
# Counted in eager PyTorch modules of a decoder layer; fused software stacks launch about half.
_LAYER_LAUNCHES, _FUSED_LAUNCHES = 30, 16
# Additional launches under tensor parallelism: launch-bound published rows of one and of four ranks differ by less.
_TENSOR_LAUNCHES = 1
# Additional launches where the softmax of the attention scores is not one kernel: cast, scale, mask and cast.
_SOFTMAX_LAUNCHES = 4
# Forward launches of the embedding (with positions and dropout) or of the head (with the last norm and the loss), and
# of a micro-batch's share of the training loop.
_END_LAUNCHES = 20
# A LoRA adapter's: two products and a scaled sum.
_ADAPTER_LAUNCHES = 3
# A mixture's: the router with its top-k and losses, sorting tokens by expert and back; each local expert's products.
_ROUTER_LAUNCHES, _EXPERT_LAUNCHES = 24, 1
# Bytes of gradients that are sent together: between torch's 25 MB and Megatron's 40 million parameters; in Megatron for
# each replica a million parameters (distributed_data_parallel_config.py).
_BUCKET_BYTES, _MEGATRON_BUCKET_BYTES = 100e6, 4e6
# Software whose layers are transformers' modules.
_TRANSFORMERS = ("hf", "deepspeed")
# Modules of a layer whose parameters an engine in Python handles: norms and matrices.
_HOOKED_MODULES = 9
_HOOKED_ORDER = 2.0


@dataclass(frozen=True, slots=True)
class _LayerCost:
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
class _EndCost:
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


_NO_END_COST = _EndCost()


def find_layout_error(work: Workload, layout: RankLayout) -> str | None:
    """Why the model cannot be divided by this layout; None where it can."""
    a = work.architecture
    if a.num_attention_heads % layout.tensor:
        return f"{layout.tensor} tensor ranks do not divide {a.num_attention_heads} heads"
    if a.intermediate_size % count_inner_ranks(a, layout):
        return (
            f"{count_inner_ranks(a, layout)} tensor ranks do not divide an intermediate size of {a.intermediate_size}"
        )
    if layout.pipeline * layout.virtual > a.num_hidden_layers + 2:
        return f"{layout.pipeline * layout.virtual} pieces of a pipeline are more than {a.num_hidden_layers} layers"
    if work.sequence % layout.context:
        return f"{layout.context} context ranks do not divide a sequence of {work.sequence}"
    if layout.expert > 1 and (not a.num_local_experts or a.num_local_experts % layout.expert):
        return f"{layout.expert} expert ranks do not divide {a.num_local_experts or 0} experts"
    if a.num_local_experts and layout.tensor * layout.data * layout.context % (
        layout.expert * count_inner_ranks(a, layout)
    ):
        return (
            f"{layout.expert} expert ranks of {count_inner_ranks(a, layout)} each do not divide the "
            f"{layout.tensor * layout.data * layout.context} ranks of a stage"
        )
    if work.global_batch % (layout.data * layout.micro_batch):
        return f"{layout.data} replicas x {layout.micro_batch} sequences do not divide a batch of {work.global_batch}"
    return None


def predict(
    work: Workload, layout: RankLayout, device: DeviceFacts, *, assumed: Set[AssumptionKind] = frozenset()
) -> Prediction:
    """The predicted step of `work` under `layout` on `layout.ranks` devices like `device`. assumed: what was taken for
    granted, which widens the bounds.

    Raises KeyError where the device's peak in the precision is unknown. The layout must be possible
    (`find_layout_error`).
    """
    seconds, flops, communicated = _predict_step(work, layout, device)
    if has_step_costs(work):
        own = compute_step_costs(work, layout)
        flops, communicated = own.flops, own.sent_bytes
    return Prediction(
        seconds=seconds,
        bytes=predict_memory(work, layout, device),
        tokens_per_step=work.global_batch * work.sequence,
        ranks=layout.ranks,
        flops=flops,
        communicated_bytes=communicated,
        spread=find_spread(work, layout, device, seconds, assumed),
    )


def predict_step_seconds(work: Workload, layout: RankLayout, device: DeviceFacts) -> StepSeconds:
    """The step time of `predict` without its memory, which is faster for callers that try very many layouts."""
    return _predict_step(work, layout, device)[0]


def _predict_step(
    work: Workload, layout: RankLayout, device: DeviceFacts
) -> tuple[StepSeconds, float, dict[str, float]]:
    """Seconds of a step, matrix FLOPs of the busiest rank, and the bytes that it sends by kind of collective."""
    a, e, stack = work.architecture, device.efficiency, work.stack
    accumulation = work.global_batch // (layout.data * layout.micro_batch)
    tokens = layout.micro_batch * work.sequence // layout.context
    layer = _layer_cost(work, layout, device, tokens)
    stages = divide_layers(work, layout)
    ends = _end_cost(work, layout, device, tokens)
    nodes = max(1, layout.ranks / device.node)

    # The launching thread runs ahead of long kernels and is the bottleneck of short ones.
    share = layer.collective / layer.passes_sent
    own = count_rank_parameters(a, layout, stages)
    # Our own worker keeps the first micro-batch's gradients as they are; other trainers add them to zeros.
    touched_bytes = stack.touched_bytes - (TORCH.touched_bytes / accumulation if stack.own else 0.0)
    touched = touched_bytes * own * work.trained_fraction / (device.bandwidth_bytes_per_s * e.memory)
    times, alone = [], []
    for i, n in enumerate(stages):
        start, end = (ends if i == 0 else _NO_END_COST), (ends if i == len(stages) - 1 else _NO_END_COST)
        forward = n * layer.forward + start.embed_forward + end.head_forward
        backward = n * (layer.backward + layer.recompute) + start.embed_backward + end.head_backward + touched
        hosts = (i == 0) + (i == len(stages) - 1)
        host_forward = n * layer.host_forward + hosts * ends.host_s
        host_backward = n * layer.host_backward + 2.0 * hosts * ends.host_s
        reduces = (start.embed_collective, end.head_collective)
        # Where an engine in Python fetches each parameter, kernels wait for it.
        order = _HOOKED_ORDER if stack.framework == "deepspeed" and layout.zero == 3 else e.host_order
        times.append(
            _overlap(forward + n * share + sum(reduces), host_forward, order)
            + _overlap(backward + n * (layer.collective - share) + reduces[1], host_backward, order)
        )
        alone.append(_overlap(forward, host_forward, order) + _overlap(backward, host_backward, order))

    # One 1F1B step: the slowest stage sets the pace of all micro-batches, and the pipeline fills and drains once:
    # (p - 1) / v of a micro-batch (Narayanan et al. 2021, sections 2.2.1 and 2.2.2).
    slowest = max(times)
    fill = (sum(times) - slowest) / layout.virtual
    is_shared = layout.sequence_parallel or stack.scattered_messages
    point_bytes = _value_bytes(work)[1] * tokens * a.hidden_size / (layout.tensor if is_shared else 1)
    point_s = 0.0
    if layout.pipeline > 1:
        stride = layout.data * layout.tensor * layout.context
        point_s = message_seconds(device, stride=stride, payload_bytes=point_bytes)
        # Forward and backward messages of each micro-batch, once for each virtual stage, and those of the fill one
        # after another. Virtual stages have other work to do while a message is under way.
        hidden = (e.data_hidden if layout.virtual > 1 else e.tensor_hidden) if stack.tensor_overlap else 0.0
        point_s = 2.0 * point_s * ((1.0 - hidden) * accumulation * layout.virtual + layout.pipeline - 1)
    compute = alone[times.index(slowest)] * accumulation
    collective = slowest * accumulation - compute

    data_s, data_bytes = _data_seconds(work, layout, device, own, accumulation, compute)
    optimizer = _optimizer_seconds(work, layout, device, own)
    seconds = StepSeconds(
        compute=compute * (1.0 + e.straggle * max(0.0, math.log2(nodes))),
        communication=collective + point_s + data_s + _offloading_seconds(layout, device, accumulation, compute),
        bubble=fill if layout.pipeline > 1 else 0.0,
        optimizer=optimizer,
        data=e.step_s,
    )
    widest = max(stages)
    passes = 2.0 if work.trained_fraction < 1.0 else 3.0
    flops = accumulation * (
        widest * (layer.flops_forward * passes + layer.flops_attention * 3.0 + layer.flops_again)
        + ends.head_flops * 3.0
    )
    communicated = {
        "tensor": accumulation * (widest * layer.collective_bytes + ends.sent_bytes),
        "data": data_bytes,
        "pipeline": 2.0 * accumulation * layout.virtual * point_bytes if layout.pipeline > 1 else 0.0,
    }
    return seconds, flops, {name: value for name, value in communicated.items() if value}


def _overlap(kernels: float, host: float, order: float) -> float:
    """Seconds of kernels and launching thread, which run concurrently and sometimes wait for each other: the longer of
    the two, and more where they are similar (a p-norm; of order 4: 19 % more where equal; of order 1: their sum)."""
    if not host:
        return kernels
    large, small = max(kernels, host), min(kernels, host)
    return float(large * (1.0 + (small / large) ** order) ** (1.0 / order))


def _attention_precision(device: DeviceFacts, precision: str) -> str:
    """The precision of attention and of the head, which are never multiplied in 8 or 4 bits."""
    return "bf16" if precision in LOW_PRECISIONS else precision


def _value_bytes(work: Workload) -> tuple[float, float]:
    """Bytes of one value of the hidden state when ranks exchange it: (forward, backward)."""
    if work.stack.own:
        wide, narrow = PRECISION_BYTES[work.stack.own]
        return narrow, wide
    return (4.0, 4.0) if work.precision in ("fp32", "tf32") else (2.0, 2.0)


# A matrix product m x k by k x n, and how often it is computed.
_Product = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _LayerShape:
    """Sizes of one layer's work for one micro-batch on one rank. queries, keys: widths of its heads. inner: width of
    its part of the MLP. routed: tokens of each of its `experts`."""

    tokens: int
    hidden: int
    queries: float
    keys: float
    inner: float
    routed: float
    experts: float


def _layer_shape(a: Architecture, layout: RankLayout, tokens: int) -> _LayerShape:
    t, experts = layout.tensor, a.num_local_experts or 1
    routed = float(tokens)
    if experts > 1:
        # Each expert computes its share of the tokens of all ranks that hold experts together.
        routed = tokens * (a.num_experts_per_tok or 1) / experts * layout.expert * count_inner_ranks(a, layout) / t
    return _LayerShape(
        tokens=tokens,
        hidden=a.hidden_size,
        queries=a.num_attention_heads * a.head_dim / t,
        keys=max(a.num_key_value_heads / t, 1.0) * a.head_dim,
        inner=a.intermediate_size / count_inner_ranks(a, layout),
        routed=routed,
        experts=experts / layout.expert,
    )


# Long: one sum of seconds and FLOPs, product by product.
def _layer_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> _LayerCost:
    a, e, stack, p = work.architecture, device.efficiency, work.stack, work.precision
    t, h = layout.tensor, a.hidden_size
    shape = _layer_shape(a, layout, tokens)
    gates = 2 if a.gated_mlp else 1
    products: list[_Product] = [
        (tokens, h, shape.queries + 2 * shape.keys, 1.0),
        (tokens, shape.queries, h, 1.0),
        (shape.routed, h, gates * shape.inner, shape.experts),
        (shape.routed, shape.inner, h, shape.experts),
    ]
    each = [matmul_seconds(device, p, m, k, n, count) for m, k, n, count in products]
    flops = _product_flops(products)
    attention = _attention_cost(work, layout, device, tokens)
    if a.traced is not None:
        # The dimensions are those of a similar plain decoder, and the products' FLOPs are the model's own.
        own, scores = (some * tokens / t for some in _traced_layer_flops(a, work.sequence))
        each, flops = [seconds * own / flops for seconds in each], own
        attention = _scale_attention(attention, scores)
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
        expanding_s = sum(k * n * count for _, k, n, count in products) * e.expand_bytes / rate
    forward = matrices + (attention.forward + light_s) + adapters.forward + expanding_s + _norm_seconds(work, device)
    backward = (2.0 if work.trained_fraction >= 1.0 else 1.0) * matrices + attention.backward + 2.0 * light_s
    backward += 2.0 * adapters.forward + expanding_s
    # Selective recomputation: only the scores where they are stored (Korthikanti et al. 2022), else everything except
    # outputs of matrix products; "alternate": of a layer's products (queries, keys, values, output, gate, up, down) the
    # even ones, and no attention.
    again, flops_again = 0.0, 0.0
    if layout.recompute == "full":
        again, flops_again = forward, flops + attention.flops
    elif _is_alternate(work, layout):
        even: list[_Product] = [
            (tokens, h, shape.keys, 1.0),
            (tokens, shape.queries, h, 1.0),
            (shape.routed, h, shape.inner, shape.experts) if a.gated_mlp else products[3],
        ]
        again = light_s + sum(matmul_seconds(device, p, m, k, n, count) for m, k, n, count in even)
        flops_again = _product_flops(even)
    elif layout.recompute == "selective":
        again, flops_again = attention.forward + (light_s if stack.flash_attention else 0.0), attention.flops
    collectives = _layer_collectives(work, layout, device, shape, attention, each)
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
    return _LayerCost(
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


def _is_alternate(work: Workload, layout: RankLayout) -> bool:
    return layout.recompute == "selective" and work.stack.selective == "alternate"


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


@dataclass(frozen=True, slots=True)
class _AttentionCost:
    """Seconds and forward FLOPs of attention between its matrix products, and the launches that it adds."""

    forward: float
    backward: float
    flops: float
    launches: int = 0


def _traced_layer_flops(a: Architecture, sequence: int) -> tuple[float, float]:
    """Forward FLOPs per slot of an average layer: of all but its scores, experts that are computed and not used
    included; of its scores."""
    assert a.traced is not None
    by, passes = train_flops_by_role(a, sequence), 3.0 * a.num_hidden_layers
    return (by.total - by.scores - by.head) / passes * computed_share(a.traced, sequence), by.scores / passes


def _attention_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> _AttentionCost:
    a, e, stack = work.architecture, device.efficiency, work.stack
    heads = a.num_attention_heads / layout.tensor
    batch = tokens * layout.context / work.sequence
    wide = _attention_precision(device, work.precision)
    if stack.flash_attention:
        seen = mean_visible_keys(work.sequence, a.sliding_window)
        flops = 4.0 * batch * (work.sequence / layout.context) * seen * heads * a.head_dim
        # Short sequences and narrow heads fill tiles of 128 less well.
        ramp = 1.0 + 256.0 / (work.sequence / layout.context) + 16.0 / a.head_dim
        share = e.attention * (1.0 if stack.native_attention else e.attention_portable)
        forward = flops * ramp / (device.peak_flops[find_peak_name(wide)] * share)
        # The backward pass recomputes the scores: 5 products to the forward's 2 (Dao et al. 2022, appendix B).
        return _AttentionCost(forward, 2.5 * forward, flops)
    # Besides the matrix products: softmax reads and writes the scores in 16 bits, dropout reads and writes them and a
    # mask of one byte; backward does the same, softmax with its own output.
    rate = device.bandwidth_bytes_per_s * e.memory
    scores = batch * heads * (work.sequence / layout.context) * work.sequence
    products = 2.0 * matmul_seconds(device, wide, batch * heads * work.sequence, a.head_dim, work.sequence)
    # The fused softmax works on four heads at a time (Megatron-LM, fused_softmax.py); where the number of heads is no
    # multiple of four, casts, scale, mask and softmax are separate kernels in 32 bits.
    is_fused = batch * heads % 4 == 0 and work.sequence <= 2048
    return _AttentionCost(
        products + (9.0 if is_fused else 38.0) * scores / rate,
        2.0 * products + (11.0 if is_fused else 46.0) * scores / rate,
        4.0 * scores * a.head_dim,
        0 if is_fused else _SOFTMAX_LAUNCHES,
    )


def _scale_attention(cost: _AttentionCost, flops: float) -> _AttentionCost:
    """The cost of attention with other FLOPs at the same rate."""
    share = flops / cost.flops
    return replace(cost, forward=cost.forward * share, backward=cost.backward * share, flops=flops)


@dataclass(frozen=True, slots=True)
class _LayerCollectives:
    """Exposed seconds and bytes of a layer's collectives. count: those of tensor parallelism, in all passes."""

    seconds: float
    sent_bytes: float
    count: float


def _layer_collectives(
    work: Workload,
    layout: RankLayout,
    device: DeviceFacts,
    shape: _LayerShape,
    attention: _AttentionCost,
    products_s: Sequence[float],
) -> _LayerCollectives:
    """The collectives of a layer. products_s: seconds of its matrix products, which hide a part of them."""
    a, e, stack = work.architecture, device.efficiency, work.stack
    t, tokens = layout.tensor, shape.tokens
    # Tensor parallelism: an all-reduce (or an all-gather and a reduce-scatter of the same bytes) after attention and
    # after the MLP, forward and backward (Shoeybi et al. 2019, section 3); full recomputation repeats the forward's.
    payload = sum(_value_bytes(work)) / 2.0 * tokens * shape.hidden
    reduce_s = collective_seconds(device, size=t, stride=1, payload_bytes=payload, kind="all_reduce")
    # "alternate" gathers the inputs of every second product again; outputs that were scattered are kept.
    repeats = {"none": 0.0, "selective": float(_is_alternate(work, layout)), "full": 2.0}[layout.recompute]
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


def _end_cost(work: Workload, layout: RankLayout, device: DeviceFacts, tokens: int) -> _EndCost:
    a, e = work.architecture, device.efficiency
    rate = device.bandwidth_bytes_per_s * e.memory
    vocab = a.vocab_size / layout.tensor
    embed = 4.0 * tokens * a.hidden_size / rate
    product = matmul_seconds(device, _attention_precision(device, work.precision), tokens, a.hidden_size, vocab)
    # Bytes per logit: cast to 32 bits, log-softmax read and written; backward: zeros, both again, gradient, its cast.
    scored = a.vocab_size if work.stack.scores_gathered else vocab
    moved = (6.0, 6.0) if work.stack.fused else (16.0, 22.0)
    if work.stack.logit_bytes:
        moved = (work.stack.logit_bytes / 2.0, work.stack.logit_bytes / 2.0)
    loss, loss_backward = (x * tokens * scored / rate for x in moved)
    narrow, wide = _value_bytes(work)
    payload = (narrow + wide) / 2.0 * tokens * a.hidden_size
    reduce_s = collective_seconds(device, size=layout.tensor, stride=1, payload_bytes=payload, kind="all_reduce")
    # Logits that every rank gathers are sent once; their gradients are already on every rank.
    scores = narrow * tokens * a.vocab_size if work.stack.scores_gathered else 0.0
    gather_s = collective_seconds(device, size=layout.tensor, stride=1, payload_bytes=scores) if scores else 0.0
    return _EndCost(
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


def _data_seconds(
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
        if replicas > shard:
            outer = replicas // shard
            reduce_s = collective_seconds(
                device,
                size=outer,
                stride=stride * shard,
                payload_bytes=reduce_bytes / shard,
                kind="all_reduce",
                parts=buckets,
            )
            sent += 2.0 * reduce_bytes / shard * (outer - 1) / outer
        window = compute * times / accumulation
    else:
        if layout.zero in (1, 2) and shard > 1:
            # In groups smaller than all replicas, each group holds all states, and sums go on between groups.
            gather = collective_seconds(device, size=shard, stride=stride, payload_bytes=low, parts=buckets)
            reduce_s = collective_seconds(device, size=shard, stride=stride, payload_bytes=reduce_bytes, parts=buckets)
            sent += (low + reduce_bytes) * (shard - 1) / shard
            if replicas > shard:
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
        else:
            reduce_s = collective_seconds(
                device, size=replicas, stride=stride, payload_bytes=reduce_bytes, kind="all_reduce", parts=buckets
            )
            sent += 2.0 * reduce_bytes * (replicas - 1) / replicas
        # Gradients are reduced during the last micro-batch's backward pass, parameters gathered in its forward pass.
        window = compute / accumulation
    total = gather + scatter + reduce_s
    if not stack.data_overlap:
        return total, sent
    if stack.gathers_late and layout.zero in (1, 2):
        return gather + max(reduce_s - e.data_hidden * window, (1.0 - e.data_hidden) * reduce_s), sent
    return max(total - e.data_hidden * window, (1.0 - e.data_hidden) * total), sent


def _offloading_seconds(layout: RankLayout, device: DeviceFacts, accumulation: int, compute: float) -> float:
    """Exposed seconds of moving activations to host memory and back, overlapped with kernels as gradients are."""
    if not layout.offloaded or not device.host_bytes_per_s:
        return 0.0
    total = 2.0 * layout.offloaded * accumulation / device.host_bytes_per_s
    hidden = device.efficiency.data_hidden
    return max(total - hidden * compute, (1.0 - hidden) * total)


def _optimizer_seconds(work: Workload, layout: RankLayout, device: DeviceFacts, own: float) -> float:
    """Seconds of the optimizer step, which is memory-bound. Adam reads the gradient, a master copy and two moments and
    writes the latter three and the parameter: 30 bytes a parameter; clipping reads the gradient once more (4). SGD with
    momentum has one moment less, plain SGD two; moments of a byte take 12 bytes less."""
    trained = own * work.trained_fraction / (layout.shard if layout.zero >= 1 else 1)
    bytes_each = {"sgd": 14.0, "adafactor": 22.0, "adamw-8bit": 22.0}.get(work.optimizer, 34.0)
    e = device.efficiency
    moved = 2.0 * work.stack.host_bytes * trained / device.bus_bytes_per_s
    return e.optimizer * bytes_each * trained / (device.bandwidth_bytes_per_s * e.memory) + moved
