"""Peak memory of the rank that needs most, in closed formulas."""

from __future__ import annotations

from dataclasses import replace

from tunemark.physics.parameters import count_parameters
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.matrix_products import LOW_PRECISIONS
from tunemark.predict.prediction import MemoryBytes
from tunemark.predict.rank_shares import (
    count_inner_ranks,
    divide_layers,
    find_unlike_stages,
    split_stage_parameters,
)
from tunemark.predict.worker_step_costs import PRECISION_BYTES, compute_step_costs, has_step_costs

# Memory that the caching allocator and the runtime's kernels take besides tensors.
_WORKSPACE_BYTES = 0.4e9


def predict_memory(work: Workload, layout: RankLayout, device: DeviceFacts, *, stage: int | None = None) -> MemoryBytes:
    """Peak memory of a rank, in bytes: of the one that needs most, or of one in that stage of the pipeline.

    Activations by Korthikanti et al. 2022, equations 1 to 4, for grouped queries and gated MLPs: what the backward
    pass of each operation needs, in 2 bytes (4 in fp32). For our own worker by `worker_step_costs`.
    """
    if work.widest is not None:
        work = replace(work, sequence=work.widest, widest=None)
    if has_step_costs(work):
        tensors = compute_step_costs(work, layout).bytes
        # What is left on the device is at least what one layer keeps.
        fewest = tensors.activations / work.architecture.num_hidden_layers
        here = max(fewest, tensors.activations - layout.offloaded) if layout.offloaded else tensors.activations
        held = replace(tensors, activations=here, workspace=tensors.workspace + device.workspace_bytes)
        return _add_heap(held, work, layout, device)
    stages = divide_layers(work, layout)
    asked = find_unlike_stages(stages) if stage is None else [stage]
    kept = device.workspace_bytes if device.heap_share else _WORKSPACE_BYTES
    every = (_predict_stage_memory(work, layout, stages, each, kept) for each in asked)
    return _add_heap(max(every, key=lambda held: held.total), work, layout, device)


# Long: one sum, a term for each kind of tensor.
def _predict_stage_memory(
    work: Workload, layout: RankLayout, stages: list[float], stage: int, kept: float
) -> MemoryBytes:
    """kept: bytes besides tensors."""
    a, stack = work.architecture, work.stack
    experts, dense = split_stage_parameters(a, layout, stages, stage)
    own = experts + dense
    wide = 2.0 if work.precision in ("fp32", "tf32") else 1.0
    main, parameter = stack.main_bytes, stack.parameter_bytes
    if work.optimizer == "sgd":
        main = max(0.0, main - 8.0)
    elif work.optimizer == "lion":
        main = max(0.0, main - 4.0)
    elif work.optimizer == "adafactor":
        main = max(0.0, main - 7.9)
    # Experts are shared by fewer replicas than everything else.
    each = layout.expert * count_inner_ranks(a, layout) / layout.tensor if experts else 1.0
    by = [
        own / (dense / layout.shard + experts / max(layout.shard / each, 1.0)) if layout.zero >= stage else 1.0
        for stage in (1, 2, 3)
    ]
    accumulation = work.global_batch // (layout.data * layout.micro_batch)
    tokens = layout.micro_batch * work.sequence / layout.context
    whole = layer_activation_bytes(work, layout, tokens, recompute="none")
    per_layer = layout.recomputed * layer_activation_bytes(work, layout, tokens) + (1.0 - layout.recomputed) * whole
    full = wide * 2.0 * tokens * a.hidden_size / (layout.tensor if layout.sequence_parallel else 1)
    vocab = a.vocab_size / (1 if stack.scores_gathered else layout.tensor)
    head_bytes = stack.head_bytes
    if a.traced is not None and stack.own:
        # Our worker's scores, in 4 bytes too where the head gives 2, their logarithms, and a gradient.
        given = PRECISION_BYTES[stack.own][1]
        head_bytes = given + (4.0 if given < 4.0 else 0.0) + 8.0
    logits = head_bytes * tokens * vocab
    flight = _count_flights(layout, accumulation, stage)
    activations = stages[stage] * per_layer * flight + (full * flight if stage == 0 else 0.0)
    working = whole if layout.recompute == "full" else 0.0
    if stage == len(stages) - 1:
        working = max(working, logits)
    c = count_parameters(a)
    ends = max(c.embedding, c.head) / layout.tensor
    units = (c.attention / layout.tensor + c.mlp / layout.expert / count_inner_ranks(a, layout)) / a.num_hidden_layers
    gathered = 0.0
    if layout.zero == 3 and layout.shard > 1:
        # One FSDP unit is prefetched while another computes and a third one's gradient is scattered, which frozen
        # weights do not have.
        largest = max(units, ends)
        gathered = (2.0 * stack.gather_bytes + stack.reduce_bytes * work.trained_fraction) * wide * largest
        if not layout.reshard:
            gathered = stack.gather_bytes * wide * own
    fraction = work.trained_fraction
    frozen = stack.frozen_bytes or parameter
    activations = max(0.0, activations - layout.offloaded * min(accumulation, layout.pipeline))
    gradients = stack.gradient_bytes * own * fraction / by[1]
    if a.traced is not None and stack.own and accumulation == 1:
        # Our worker's gradients come as activations go, and are freed by each step.
        gradients = max(0.0, gradients - activations)
    held_states = MemoryBytes(
        parameters=(parameter * fraction + frozen * (1.0 - fraction)) * own / by[2],
        gradients=gradients,
        optimizer=main * own * fraction / by[0],
        activations=activations,
        buffers=gathered + stack.engine_bytes * (2.0 if layout.zero == 3 else 1.0),
        workspace=working + stack.head_gradient_bytes * ends + kept,
    )
    # The update comes when activations are gone, with temporaries of its own.
    more = max(0.0, stack.step_bytes * own * fraction / by[0] - held_states.activations - working)
    more += stack.reserve * held_states.total
    return replace(held_states, workspace=held_states.workspace + more)


def _add_heap(held: MemoryBytes, work: Workload, layout: RankLayout, device: DeviceFacts) -> MemoryBytes:
    """The memory with what a heap takes besides its blocks; unchanged where tensors are in no heap of the host.

    An aligned block is asked for with more than its size, so that the place of a freed one is too small for the next of
    the same size (glibc's `_int_memalign`). Where no block goes back to the kernel, each tensor of scores then has a
    place of its own: the scores, themselves in float32, their softmax, two gradients, and that one cast down.
    """
    if not device.heap_share:
        return held
    again = 0.0
    if device.keeps_blocks and work.loss == "plain" and work.stack.own and layout.pipeline == 1:
        given = PRECISION_BYTES[work.stack.own][1]
        tokens = layout.micro_batch * work.sequence / layout.context
        # Of 20 bytes a score 14 are there together. The six were chosen while looking at cells of one model, sequence
        # and installation; no others check them (docs/fit.md).
        again = (6.0 if given < 4.0 else 0.0) * tokens * work.architecture.vocab_size
    blocks = held.total - device.workspace_bytes + again
    return replace(held, workspace=held.workspace + again + device.heap_share * blocks)


def _count_flights(layout: RankLayout, accumulation: int, stage: int) -> float:
    """Micro-batches whose activations a stage holds at once. Interleaved, they are held by chunks of a stage's layers:
    2 (p - 1 - i) + (v - 1) p + 1 of them (Narayanan et al. 2021, section 2.2.2)."""
    if layout.schedule == "gpipe":
        return float(accumulation)
    p, v = layout.pipeline, layout.virtual
    flights = p - stage if v == 1 else p + (p - 1 - 2 * stage) / v
    return float(min(accumulation, flights))


def layer_activation_bytes(work: Workload, layout: RankLayout, tokens: float, recompute: str | None = None) -> float:
    """Bytes of activations that one layer keeps of one micro-batch for its backward pass."""
    a, stack = work.architecture, work.stack
    kind = layout.recompute if recompute is None else recompute
    t = layout.tensor
    shared = t if layout.sequence_parallel else 1
    h, wide = a.hidden_size, 2.0 if work.precision in ("fp32", "tf32") else 1.0
    if kind == "full":
        return wide * 2.0 * tokens * h / shared
    if kind == "none" and a.traced is not None and (kept := _traced_layer_kept(work, tokens)) is not None:
        # The layer's input and the sums of residuals are whole in every tensor rank.
        whole = wide * 2.0 * tokens * 4.0 * h
        return min(kept, whole) / shared + max(0.0, kept - whole) / t
    queries = a.num_attention_heads * a.head_dim / t
    keys = max(a.num_key_value_heads / t, 1.0) * a.head_dim
    inner = a.intermediate_size / t * (a.num_experts_per_tok or 1)
    # Both norms' inputs and outputs; queries, keys and values; attention's output.
    values = 2.0 * tokens * (4.0 * h / shared + 2.0 * queries + 2.0 * keys)
    # Gate, up and their product; in a plain MLP the activation's input and output.
    values += 2.0 * tokens * inner * ((2.0 if stack.fused else 3.0) + 1.0 if a.gated_mlp else 2.0)
    if work.precision in LOW_PRECISIONS and stack.fused:
        # Inputs of matrix products are kept in 8 bits; attention's output in an additional copy.
        values += tokens * (-2.0 * h / shared + queries - inner)
    if not stack.flash_attention and kind == "none":
        values += 5.0 * tokens * work.sequence * a.num_attention_heads / t
    if stack.flash_attention and kind == "selective":
        # The layer's input, and the output of each matrix product.
        values = 2.0 * tokens * (3.0 * h / shared + queries + 2.0 * keys + inner * (2.0 if a.gated_mlp else 1.0))
        if stack.selective == "alternate":
            # The layer's input, queries, values, attention's output; in a gated MLP the gate and its output, which
            # tensor ranks have yet to sum, and each rank's own part of those sums.
            values = 2.0 * tokens * (h / shared + 2.0 * queries + keys + inner)
            values += 2.0 * tokens * ((h if a.gated_mlp else 0.0) + (2.0 * h / shared if t > 1 else 0.0))
    return wide * values


def _traced_layer_kept(work: Workload, tokens: float) -> float | None:
    """Bytes that an average layer of a traced model keeps for its backward pass; None where that was not traced.

    They are those of attention in separate operators: without its scores, of a flash kernel, which keeps queries, keys,
    values and output as these do."""
    traced, found = work.architecture.traced, 0.0
    assert traced is not None
    for layer in traced.layers:
        if layer.kept is None:
            return None
        each, scores = layer.kept[1 if work.precision in ("fp32", "tf32") else 0]
        found += tokens * (each + (0.0 if work.stack.flash_attention else scores * work.sequence))
    return found / len(traced.order)
