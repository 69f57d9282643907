"""FLOPs, bytes sent and peak memory of a step of our own worker, in closed formulas independent of any hardware.

Every storage that torch's eager operators keep in transformers' decoders is counted; the terms were read off the steps
that `simulation` counts and are tested against them (`benchmarks/engines.py`). Memory is computed at the few moments at
which it can peak. It is what tensors hold, without the allocator's rounding or the runtime's own memory.

Not modelled: mixtures of experts, attention of several operators (Gemma 2), families without a formula, frozen
matrices of few bits, and the 128 MiB that a chunked loss holds between its products on an accelerator (on a CPU it
takes 8).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunemark.physics.flops import hardware_flops_per_token, train_flops_by_role, weight_norm_flops
from tunemark.physics.parameters import count_lora_parameters, lora_adapters
from tunemark.physics.parameters import count_parameters as count_parameters
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.prediction import MemoryBytes
from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import FORMAT_BYTES, PRECISIONS
from tunemark_worker.training_settings import CACHED_SCORES, CHUNK_SCORES, IN_BACKWARD

# Bytes of a parameter, and of a value that goes in or out of a matrix product, by the worker's name of the precision.
PRECISION_BYTES = {
    name: (float(FORMAT_BYTES[each.weights]), float(FORMAT_BYTES[each.products])) for name, each in PRECISIONS.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStepCosts:
    """One step; each figure is of the rank that has most of it. sent_bytes: by axis of the mesh."""

    flops: float
    sent_bytes: dict[str, float]
    bytes: MemoryBytes


# A search asks for the memory of a layout and then for its time.
@functools.lru_cache(maxsize=4)
def compute_step_costs(work: Workload, layout: RankLayout) -> WorkerStepCosts:
    """The step of `work` under `layout`; `work.stack` must name our worker's precision (`SoftwareStack.own`)."""
    stages = [_PipelineStage(work, layout, number) for number in range(layout.pipeline)]
    sent = [stage.sent() for stage in stages]
    return WorkerStepCosts(
        flops=max(stage.flops() for stage in stages),
        sent_bytes=max(sent, key=lambda each: sum(each.values())),
        bytes=max((held for stage in stages for held in stage.moments()), key=lambda held: held.total),
    )


def has_step_costs(work: Workload) -> bool:
    """Whether the formulas of this module cover the workload."""
    if work.architecture.eager_attention or work.architecture.traced is not None:
        return False
    is_named = work.trained_fraction == 1.0 or work.trained.lora_rank > 0
    is_quantized = work.stack.base_bits > 0
    return bool(work.stack.own) and not work.architecture.num_local_experts and is_named and not is_quantized


class _PipelineStage:
    """One rank of one pipeline stage (the only one without a pipeline)."""

    def __init__(self, work: Workload, layout: RankLayout, number: int) -> None:
        a = self._a = work.architecture
        self._work, self._layout, self._stage_number = work, layout, number
        self._param_bytes, self._value_bytes = PRECISION_BYTES[work.stack.own]
        self._is_autocast = self._param_bytes != self._value_bytes
        # Products in fp8 cast their weights anew, forward and backward.
        self._keeps_casts = self._is_autocast and not PRECISIONS[work.stack.own].float8
        self._pieces = _pieces(layout, number)
        self._is_first, self._is_last = 0 in self._pieces, layout.pipeline * layout.virtual - 1 in self._pieces
        self._accumulation = work.global_batch // (layout.data * layout.micro_batch)
        self._layers = _layers(a.num_hidden_layers, layout, self._pieces)
        t = layout.tensor
        c = count_parameters(a)
        depth = a.num_hidden_layers
        self._matrices = (c.attention + c.mlp) / depth / t
        norm = c.norm / (depth * a.norms_per_layer + 1)
        self._layer_parameters = self._matrices + c.bias / depth / t + a.norms_per_layer * norm
        table = math.ceil(a.vocab_size / t) * a.hidden_size
        # A tied weight exists once where this stage has both the embedding and the head.
        self._is_tied_apart = a.tie_word_embeddings and self._is_first != self._is_last
        has_head = self._is_last and (not a.tie_word_embeddings or self._is_tied_apart)
        self._ends = (table + c.position) * self._is_first + table * has_head + norm * self._is_last
        self._table = table
        rank, targets = work.trained.lora_rank, work.trained.lora_targets
        # Names of the matrices of a layer with LoRA adapters, and these; none where all parameters are trained.
        self._adapted = {part for each in lora_adapters(a, targets) for part in each.parts} if rank else set()
        self._adapters = lora_adapters(a, targets) if rank else ()
        self._lora_rank = rank
        self._has_magnitudes = work.trained.lora_magnitudes
        added = count_lora_parameters(a, rank, targets, magnitudes=self._has_magnitudes) / depth if rank else 0.0
        self._layer_parameters += added
        self._parameters = self._layers * self._layer_parameters + self._ends
        # Trained parameters: of a layer, and of the rank.
        self._layer_trained = added if rank else self._layer_parameters
        self._trained = self._layers * added if rank else self._parameters
        self._tokens = float(layout.micro_batch * work.sequence)
        self._sequence_shards = t if layout.sequence_parallel else 1

    def flops(self) -> float:
        """Matrix FLOPs, by the counts of `tunemark.physics`; recomputation of a checkpointed layer stops before its
        last product, whose output is not needed."""
        a, trained, layout, sequence = self._a, self._work.trained, self._layout, self._work.sequence
        by = train_flops_by_role(a, sequence, trained=trained)
        layers, count = by.total - by.head, self._layers
        if self._lora_rank:
            # The first layer has less to do: only frozen weights come before it, so its input needs no gradient.
            one = train_flops_by_role(replace(a, num_hidden_layers=1, layer_types=None), sequence, trained=trained)
            first = one.total - one.head
            layer = (layers - first) / max(a.num_hidden_layers - 1, 1)
            done = count * layer - (layer - first) * self._is_first
        else:
            done = count * layers / a.num_hidden_layers
        again = hardware_flops_per_token(a, sequence, recomputation=layout.recompute, trained=trained) - by.total
        done += count * again / a.num_hidden_layers
        if layout.recompute == "full":
            last = 2.0 * a.intermediate_size * a.hidden_size
            if self._lora_rank and "down_proj" in self._adapted:
                last = 2.0 * self._lora_rank * a.hidden_size
            if a.post_norm or (self._has_magnitudes and "down_proj" in self._adapted):
                last = 0.0
            done -= count * last
        # Of one forward pass, whatever its tokens.
        norms = weight_norm_flops(a, trained).spent / a.num_hidden_layers * (2 if layout.recompute == "full" else 1)
        passes = self._tokens * (done + by.head * self._is_last) / layout.tensor + count * norms
        return self._accumulation * passes

    def sent(self) -> dict[str, float]:
        layout, a = self._layout, self._a
        t, hidden = layout.tensor, self._tokens * self._a.hidden_size
        found = {}
        if t > 1:
            # Summed forward: the output of a block's last product; backward: the gradient of its first products' input.
            # Under sequence parallelism each sum is a scatter and a gather.
            each = 4.0 * (self._value_bytes + self._param_bytes)
            if layout.recompute == "full":
                # Recomputation repeats the sums or gathers of the blocks' inputs, without the layer's last sum.
                each += (
                    self._value_bytes + 2.0 * self._param_bytes if layout.sequence_parallel else 2.0 * self._value_bytes
                )
            passing = self._layers * each * hidden
            ends = 2.0 * self._param_bytes * hidden * (self._is_first + self._is_last)
            if layout.sequence_parallel:
                ends += self._param_bytes * hidden * 2.0
            scores = self._value_bytes * self._tokens * a.vocab_size * self._is_last
            found["tensor"] = self._accumulation * (passing + ends + scores) * (t - 1) / t
        shard, copies = (layout.shard, layout.data // layout.shard) if layout.zero else (1, layout.data)
        own = self._param_bytes * self._trained
        if layout.data > 1:
            sent = 2.0 * own / shard * (copies - 1) / copies
            if shard > 1:
                layers, ends = (2.0 if layout.reshard else 1.0) * self._accumulation, float(self._accumulation)
                if layout.pipeline > 1:
                    # A pipeline schedule keeps what one backward pass gathered for the next pass of either kind.
                    layers, ends = (self._accumulation + 1.0 if layout.reshard else 1.0), 1.0
                gathers = layers * self._layers * self._layer_parameters + ends * self._ends
                sent += (self._param_bytes * gathers + own) * (shard - 1) / shard
            found["data"] = sent
        if self._is_tied_apart and not self._lora_rank:
            # The first and the last stage both hold the tied weight and all-reduce its gradient, in a group of two.
            found["tied"] = self._param_bytes * self._table / shard
        if layout.pipeline > 1:
            found["pipeline"] = self._accumulation * self._param_bytes * hidden * self._messages_per_micro_batch()
        return found

    # Long: each moment is a sum of the same two dozen quantities, in the order of a step.
    def moments(self) -> Iterator[MemoryBytes]:
        """Memory at each moment at which it can peak: the loss; backward passes of the head, of the last, second and
        first layer (several moments each) and of the embedding; the end of data parallelism; the update.

        Memory changes linearly from layer to layer, so the peak cannot be at a layer between these."""
        layout, work, a = self._layout, self._work, self._a
        wide, narrow, tokens = self._param_bytes, self._value_bytes, self._tokens
        states = OPTIMIZERS[work.optimizer].bytes_per_parameter(wide) / wide
        shard = layout.shard if layout.zero else 1
        own, layer, ends = wide * self._parameters, wide * self._layer_parameters, wide * self._ends
        trained, is_full = wide * self._trained, not self._lora_rank
        layer_trained = wide * self._layer_trained
        ends_trained = ends * is_full
        parameters, optimizer, whole = own / shard, states * trained / shard, trained / shard
        is_chunked = work.loss == "chunked" and self._is_last
        scores = 0.0 if is_chunked else tokens * a.vocab_size * self._is_last
        held_scores = narrow * scores
        product = narrow * tokens * a.intermediate_size / layout.tensor
        matrix = wide * a.hidden_size * a.intermediate_size / layout.tensor * is_full
        # A weight's gradient comes in the precision of its matrix product.
        narrowed = narrow / wide if self._is_autocast else 0.0
        table = wide * self._table * is_full
        # Logits in float32: themselves, their softmax, and the gradients of both.
        at_loss = 12.0 * scores
        if is_chunked:
            # Those of a chunk, in whose place their gradient comes; the weight's gradient and a chunk's part of it.
            chunk = min(tokens, max(CHUNK_SCORES // a.vocab_size, 1)) * a.vocab_size
            at_loss = chunk * narrow + 8.0 * CACHED_SCORES + table + narrow * self._table * is_full
        stream = (wide + narrow * self._is_autocast) * tokens * a.hidden_size
        buffers = 0.0
        if layout.pipeline > 1:
            # A receive buffer for each micro-batch's hidden state and for each gradient.
            neighbours = 2 * layout.virtual - self._is_first - self._is_last
            buffers = self._accumulation * wide * tokens * a.hidden_size * neighbours
        accumulated = self._accumulation > 1
        is_bucketed = layout.data > 1 and not layout.zero and layout.tensor == layout.pipeline == 1
        # On a mesh of several axes, replicas are synchronised by FSDP's mechanism with unsharded parameters.
        is_gathered = layout.data > 1 and not is_bucketed
        reshard = layout.reshard and layout.zero == 3
        is_tied = a.tie_word_embeddings and self._is_first and self._is_last
        bucket = trained if is_bucketed else 0.0

        is_early = work.update == IN_BACKWARD
        # A parameter's gradient and the temporaries of its update, by its own size.
        updated = 1.0 + self._temporaries()

        def moment(gradients: float, activations: float, workspace: float, gathered: float = 0.0) -> MemoryBytes:
            return MemoryBytes(
                parameters=parameters,
                gradients=bucket + gradients,
                optimizer=optimizer,
                activations=activations,
                buffers=buffers + gathered * is_gathered,
                workspace=workspace,
            )

        flights, depth = self._in_flight(), self._layers
        is_saved = layout.recompute == "none"
        layers, mask, one = self._saved_bytes() - self._non_layer_bytes(), self._mask(), self._activations()
        casts, head_cast = self._casts(1), narrow * self._table * self._is_last * self._is_autocast
        # Autocast keeps its copies of trained weights until the end of the forward pass; of frozen ones it keeps none.
        cached = casts * (not is_saved) * is_full
        everything = self._saved_bytes() + casts * depth * is_saved + head_cast
        # Of a layer: what its MLP keeps (`part`), and what is computed again (`again`).
        count = 3.0 if a.gated_mlp else 2.0
        part = narrow * tokens * self._mlp_values() + self._norm()
        if self._is_autocast:
            part += narrow * count * a.hidden_size * a.intermediate_size / layout.tensor
        again = 0.0
        if not is_saved:
            again = one + casts - (layers / max(depth, 1.0) if layout.recompute == "selective" else 0.0)
        root = ends if reshard else own
        # A norm's backward pass is several operators in float32.
        normed = 0.0 if a.norm_bias else 20.0 * tokens * a.hidden_size / self._sequence_shards
        is_piped, is_behind = layout.pipeline > 1, layout.schedule == "gpipe"
        # The first backward pass, and a later one, which adds to existing gradients: then one micro-batch less is in
        # flight, unless another has started meanwhile.
        passes = [(False, flights)]
        if accumulated:
            passes.append((True, flights if self._accumulation > flights else flights - 1.0 / layout.virtual))
        for is_later, under_way in passes:
            before = trained if is_later else 0.0
            if is_later and self._is_first and is_full and not is_tied:
                # Before it is summed, DTensor's gradient of a sharded embedding has rows for the whole vocabulary.
                before += (layout.tensor - 1) * table
            # Gradients need their own memory, unless they are added to existing ones or copied into a bucket.
            stays = float(not is_early and not is_later and (accumulated or not is_bucketed))
            others = (under_way - 1.0) * everything
            if self._has_magnitudes:
                gathered = ends + 2.0 * layer if reshard else own
                yield moment(before, layers + again + mask + others, self._norm_workspace(), gathered)
            # A schedule with all forward passes first (GPipe) already holds all micro-batches' logits and softmaxes.
            held = held_scores + (under_way - 1.0) * (narrow + 4.0) * scores * is_behind
            if is_gathered and not (is_later and is_piped):
                # The last layer's weights are gathered and copied into place, while the previous layer's receive buffer
                # still exists.
                came = (2.0 + (depth > 1.0)) * layer - (0.0 if reshard else layer)
                so_far = (
                    others
                    + everything
                    - self._non_layer_bytes()
                    - layers / max(depth, 1.0)
                    - casts * is_saved
                    - head_cast
                )
                so_far += cached * (depth - 1.0)
                yield moment(before, so_far, held_scores * is_later, root + came)
            if self._is_last:
                # At the end of the forward pass the last layer's receive buffer is freed. Tensor ranks gather the
                # logits and then reorder them.
                copies = cached * depth
                gathers = (1.0 + 1.0 / layout.tensor) * held_scores if layout.tensor > 1 else 0.0
                if not (is_later and is_behind):
                    # The previous micro-batch's logits live until these replace them.
                    gathers += held_scores * (is_later and not is_piped)
                    yield moment(before, others + everything + copies, held + gathers, root + layer)
                yield moment(before, others + everything, held + at_loss, own if is_later and is_behind else root)
                kept = own if is_later and is_behind else root + layer * reshard
                # Once a product's gradients exist, its inputs are freed; then the weight's gradient is cast up.
                yield moment(before, others + everything, held + held_scores + table + stream, kept)
                if is_early and not is_tied:
                    yield moment(before, others + everything, held + stream + updated * table, kept)
            elif not is_saved:
                yield moment(before, others + everything + cached * depth, held, root)
            # Whether each layer's gradients are scattered as soon as they exist: in the last backward pass.
            ends_with = is_gathered and not is_piped
            kinds = [ends_with and is_later == accumulated]
            if ends_with and is_later and self._accumulation > 2:
                kinds.append(False)
            for is_scattered, behind in itertools.product(
                kinds, sorted({0.0, min(1.0, depth - 1.0), max(depth - 2.0, 0.0), depth - 1.0})
            ):
                left = layers * (depth - behind) / max(depth, 1.0) + again + mask + others
                left += casts * (depth - behind) * is_saved
                done = behind * layer_trained + table * (self._is_last and not is_tied)
                # The backward pass frees weights of finished layers, except in a pipeline.
                gathered = own - behind * layer * (not is_piped)
                if reshard and not (is_later and is_behind and is_piped):
                    # The layer's weights, those prefetched of the previous one, and in a pipeline those of later ones.
                    gathered = ends + (1.0 + behind * is_piped + (behind < depth - 1)) * layer
                formed = before + stays * done
                if is_scattered:
                    formed = table * (self._is_last and not is_tied) * (not is_later) + behind * layer_trained / shard
                    formed += max(before - behind * layer_trained, 0.0)
                elif is_bucketed and is_later and self._accumulation == 2:
                    formed = max(before - done, 0.0)
                formed += table * is_tied
                if is_scattered and behind:
                    # The send buffer of the following layer's gradients is freed when this one's are sent.
                    gathered += layer_trained
                if is_piped and reshard and not (is_later and is_behind):
                    # Gathered weights are copied into place.
                    yield moment(formed, left - again, held + stream, ends + (2.0 + behind) * layer)
                fresh = (1.0 + narrowed) * matrix
                kept = product + matrix if not narrowed else max(product + narrowed * matrix, matrix)
                yield moment(formed, left, held + stream + kept, gathered)
                if is_early:
                    yield moment(formed, left, held + stream + product + updated * matrix, gathered)
                yield moment(formed, left, held + stream + 2.0 * product + stays * matrix, gathered)
                most = stays * (count - 1.0) * matrix + fresh
                yield moment(formed, left - part, held + stream + most + product, gathered)
                now = left - one - casts
                yield moment(formed, now, held + stream + normed + stays * layer_trained, gathered)
                if is_scattered:
                    # Gradients are copied into the send buffer, then the layer's weights are freed.
                    copied = (1.0 + stays) * layer_trained
                    gone = layer + layer_trained * (behind > 0)
                    yield moment(formed, now, held + stream + copied, gathered - gone)
            if is_full and self._is_first:
                # The embedding's gradient, on tensor ranks with rows for the whole vocabulary; a tied one is then
                # sharded and added to the head's.
                t = layout.tensor
                fresh = ((t + 3.0 if t > 1 else 3.0) if is_tied else t) * table
                if is_early:
                    fresh = max(fresh, updated * table)
                last = own if is_piped else ends
                formed = before or (own - table) * stays
                if is_gathered and not is_piped and not accumulated:
                    formed = (own - ends) / shard + ends - table
                    last += layer
                yield moment(formed, others + mask, held + fresh, last)
        if is_gathered and not is_piped:
            # Gradients of embedding and head are copied into the send buffer, which the collective copies again.
            sent = 2.0 * ends_trained
            yield moment((trained - ends_trained) / shard, 0.0, held_scores + sent)
            yield moment(whole, 0.0, held_scores + sent)
        elif is_gathered:
            yield moment(trained, 0.0, held_scores + ends_trained, own - ends)
            rest = trained - ends_trained + ends_trained / shard
            yield moment(rest, 0.0, held_scores + 2.0 * ends_trained, own - ends)
        if not is_early:
            largest = max(table if self._ends >= self._table else 0.0, matrix) / shard
            # Many tensors at once: a temporary for each.
            beside = whole if work.optimizer_impl == "foreach" else self._temporaries() * largest
            yield moment(whole * (not is_bucketed), 0.0, held_scores + beside)

    def _temporaries(self) -> float:
        """How many temporaries of a parameter's size its update takes: of AdamW two, of Adafactor and SGD one."""
        if self._work.optimizer_impl == "fused":
            return 0.0
        return 2.0 if OPTIMIZERS[self._work.optimizer].states == 2 else 1.0

    def _casts(self, layers: float, *, is_whole: bool = False) -> float:
        """Bytes of autocast's 16-bit copies of weights, which autograd keeps."""
        if not self._is_autocast:
            return 0.0
        matrices = layers * self._matrices * self._keeps_casts
        return self._value_bytes * (matrices + (self._table * self._is_last if is_whole else 0.0))

    def _messages_per_micro_batch(self) -> int:
        """Hidden states and their gradients that the rank sends for each micro-batch: to the ranks with the next and
        the previous model chunk, where these are other ranks."""
        last = self._layout.pipeline * self._layout.virtual - 1
        beside = [n for piece in self._pieces for n in (piece - 1, piece + 1) if 0 <= n <= last]
        return sum(n not in self._pieces for n in beside)

    def _in_flight(self) -> float:
        """Micro-batches whose activations the rank holds at once, averaged over its model chunks."""
        layout, passes, number = self._layout, self._accumulation, self._stage_number
        p, v = layout.pipeline, layout.virtual
        if p == 1:
            return 1.0
        if layout.schedule == "gpipe":
            return float(passes)
        if layout.schedule == "zbv":
            return float(min(passes, p))
        # Chunk forward passes before the first backward pass, in rounds of about as many micro-batches as there are
        # stages (Narayanan et al. 2021, section 2.2.2).
        each = passes // max(1, passes // p)
        ahead = (v - 1) * each + (1 if v == 1 or layout.schedule == "zb" else 2) * (p - 1 - number)
        if layout.schedule == "zb":
            # Weight gradients lag behind input gradients by as many chunks as there are stages before this one.
            ahead += number
        return min(passes * v, ahead + 1) / v

    def _saved_bytes(self) -> float:
        """Bytes of activations that one micro-batch keeps for its backward pass."""
        a, layout, tokens = self._a, self._layout, self._tokens
        stream = self._param_bytes * tokens * a.hidden_size / self._sequence_shards
        found = self._layers * (self._activations() if layout.recompute == "none" else stream)
        if layout.recompute == "selective":
            t = layout.tensor
            columns = (a.num_attention_heads + 2 * a.num_key_value_heads) * a.head_dim / t
            columns += (2 if a.gated_mlp else 1) * a.intermediate_size / t
            rows = 2.0 * a.hidden_size * (2.0 if t > 1 else 1.0)
            found += self._layers * self._value_bytes * tokens * (columns + rows)
            # Adapters are matrix products too, as are those of weights for norms.
            kept = tokens * sum(self._lora_rank + x.outputs for x in self._adapters)
            if self._has_magnitudes:
                kept += sum(x.inputs * (self._lora_rank + x.outputs) for x in self._adapters)
            found += self._layers * self._value_bytes * kept
        return found + self._non_layer_bytes()

    def _non_layer_bytes(self) -> float:
        """Bytes that one micro-batch keeps outside layers: of the last norm or for the next stage, and the mask."""
        values = self._tokens * self._a.hidden_size
        found = self._norm() + self._value_bytes * values if self._is_last else self._param_bytes * values
        return found + self._mask()

    def _norm_workspace(self) -> float:
        """Temporaries of the norms of the largest adapted matrix: the identity, B A, its multiple, and W + B A."""
        return self._param_bytes * max(x.inputs * (x.inputs + 3.0 * x.outputs) for x in self._adapters)

    def _mask(self) -> float:
        return self._value_bytes * self._tokens * self._work.sequence if self._work.packed else 0.0

    def _mlp_values(self) -> float:
        """Values per token that a layer's MLP keeps, including its input."""
        a = self._a
        inner = a.intermediate_size / self._layout.tensor
        inputs = a.hidden_size * (2.0 if self._is_autocast and a.gated_mlp and not a.fused_projections else 1.0)
        return inputs + inner * (4.0 if a.gated_mlp else 5.0)

    def _norm(self) -> float:
        """Bytes that a norm keeps, besides its output, which the following products keep."""
        a = self._a
        values = self._tokens * a.hidden_size / self._sequence_shards
        if a.norm_bias:
            return self._param_bytes * values
        # In float32: the input and the normalised input; in 16 bits: the input's copy and the normalised input cast
        # down. The normalised input is only needed for the gradient of the weight.
        if self._lora_rank:
            return 4.0 * values
        return (8.0 if self._param_bytes == 4.0 or a.post_norm else 6.0) * values

    def _activations(self) -> float:
        """Bytes that one layer keeps of one micro-batch without recomputation."""
        a, t, narrow = self._a, self._layout.tensor, self._value_bytes
        heads = a.num_attention_heads / t
        queries, own = heads * a.head_dim, a.num_key_value_heads * a.head_dim / t
        keys = own
        if self._work.packed:
            # With a mask, keys and values are repeated for each query head of their group.
            keys = queries
        inner = a.intermediate_size / t
        is_fused = a.fused_projections
        # Autocast casts the same input down once for each product.
        inputs = a.hidden_size * (5.0 if self._is_autocast and a.gated_mlp and not is_fused else 2.0)
        # Gate, its activation, up and their product; GPT-2's activation is five operations.
        mlp = inner * (4.0 if a.gated_mlp else 5.0)
        if self._lora_rank:
            # Frozen matrices do not keep their input; adapters do, and autocast casts it down for each.
            blocks = [each.parts[0] in ("gate_proj", "up_proj") for each in self._adapters
                      if each.parts[0] not in ("o_proj", "down_proj")]  # fmt: skip
            inputs = a.hidden_size * len(blocks if self._is_autocast else {*blocks})
            mlp -= inner * ("down_proj" not in self._adapted)
            if self._is_autocast and "o_proj" in self._adapted:
                inputs += queries
            inputs += self._lora_rank * len(self._adapters)
            if self._has_magnitudes:
                # What a magnitude scales: the outputs of the matrix and of its adapter.
                inputs += 2.0 * sum(each.outputs for each in self._adapters)
        values = inputs + 2.0 * queries + 2.0 * keys + mlp
        if is_fused and a.rope_theta is not None and not (self._work.packed and own < queries):
            # Values are a view of the fused product's output; rotated queries and keys are new tensors.
            values += queries + own
        normed = 0.0
        if a.qk_norm:
            normed = (8.0 if narrow == 4.0 or a.post_norm else 6.0) * (queries + own)
            if self._lora_rank:
                normed = 4.0 * (queries + own)
        return 2.0 * self._norm() + self._tokens * (narrow * values + normed + 4.0 * heads)


def _pieces(layout: RankLayout, number: int) -> tuple[int, ...]:
    """The model chunks of a pipeline stage: dealt in turn, or (zbv) one from either end."""
    if layout.schedule == "zbv":
        return (number, 2 * layout.pipeline - 1 - number)
    return tuple(range(number, layout.pipeline * layout.virtual, layout.pipeline))


def _layers(depth: int, layout: RankLayout, pieces: tuple[int, ...]) -> float:
    """Layers of a rank; the first chunks have one more where the layers do not divide evenly."""
    each, more = divmod(depth, layout.pipeline * layout.virtual)
    return float(sum(each + (n < more) for n in pieces))
