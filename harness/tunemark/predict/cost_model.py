"""The analytic engine: step time and memory in closed formulas from dimensions, tens of microseconds a plan, no torch.

Sources. Matrix FLOPs: Chowdhery et al. 2022 ("PaLM"), appendix B. Activations, recomputation, sequence parallelism:
Korthikanti et al. 2022, sections 4 and 5. Sharding of training states: Rajbhandari et al. 2020. Pipelines: Narayanan et
al. 2021, section 2.2. Collectives: `hardware_rates`. Fused attention: Dao et al. 2022. A matrix product takes the
longer of its arithmetic and its memory traffic (Williams et al. 2009, "Roofline"), a layer the longer of its kernels
and their launches.
"""

from __future__ import annotations

import math
from collections.abc import Set

from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionKind
from tunemark.predict.communication_costs import compute_data_seconds, compute_offloading_seconds, value_bytes
from tunemark.predict.hardware_rates import message_seconds
from tunemark.predict.layer_costs import NO_END_COST, compute_end_cost, compute_layer_cost
from tunemark.predict.layout import TORCH, RankLayout, Workload
from tunemark.predict.memory_model import predict_memory as predict_memory
from tunemark.predict.prediction import Prediction, StepSeconds
from tunemark.predict.prediction_bounds import find_spread
from tunemark.predict.rank_shares import count_inner_ranks, count_rank_parameters, divide_layers
from tunemark.predict.worker_step_costs import compute_step_costs, has_step_costs

# Where an engine in Python fetches each parameter, kernels wait for it.
_HOOKED_ORDER = 2.0


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
    layer = compute_layer_cost(work, layout, device, tokens)
    stages = divide_layers(work, layout)
    ends = compute_end_cost(work, layout, device, tokens)
    nodes = max(1, layout.ranks / device.node)

    # The launching thread runs ahead of long kernels and is the bottleneck of short ones.
    share = layer.collective / layer.passes_sent
    own = count_rank_parameters(a, layout, stages)
    # Our own worker keeps the first micro-batch's gradients as they are; other trainers add them to zeros.
    touched_bytes = stack.touched_bytes - (TORCH.touched_bytes / accumulation if stack.own else 0.0)
    touched = touched_bytes * own * work.trained_fraction / (device.bandwidth_bytes_per_s * e.memory)
    times, alone = [], []
    for i, n in enumerate(stages):
        start, end = (ends if i == 0 else NO_END_COST), (ends if i == len(stages) - 1 else NO_END_COST)
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
    point_bytes = value_bytes(work)[1] * tokens * a.hidden_size / (layout.tensor if is_shared else 1)
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

    data_s, data_bytes = compute_data_seconds(work, layout, device, own, accumulation, compute)
    optimizer = _optimizer_seconds(work, layout, device, own)
    moving_s = compute_offloading_seconds(work, layout, device, accumulation, compute)
    seconds = StepSeconds(
        compute=compute * (1.0 + e.straggle * max(0.0, math.log2(nodes))),
        communication=collective + point_s + data_s + moving_s,
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


def _optimizer_seconds(work: Workload, layout: RankLayout, device: DeviceFacts, own: float) -> float:
    """Seconds of the optimizer step, which is memory-bound. Adam reads the gradient, a master copy and two moments and
    writes the latter three and the parameter: 30 bytes a parameter; clipping reads the gradient once more (4). SGD with
    momentum has one moment less, plain SGD two; moments of a byte take 12 bytes less."""
    trained = own * work.trained_fraction / (layout.shard if layout.zero >= 1 else 1)
    bytes_each = {"sgd": 14.0, "lion": 26.0, "adafactor": 22.0, "adamw-8bit": 22.0}.get(work.optimizer, 34.0)
    e = device.efficiency
    moved = 2.0 * work.stack.host_bytes * trained / device.bus_bytes_per_s
    return e.optimizer * bytes_each * trained / (device.bandwidth_bytes_per_s * e.memory) + moved
