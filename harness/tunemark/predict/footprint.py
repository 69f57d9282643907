"""What a step of our own worker computes, sends and holds, in closed formulas: no machine enters here.

Every storage that torch's eager operators keep is accounted for as those of transformers' decoders keep it; the terms
were read off the steps that `simulated` counts and hold against them (`benchmarks/engines.py`). Memory is taken at the
few moments at which a step can hold most: at the loss, within a layer's backward pass, at the end of it, and in the
update. It is what tensors hold: no allocator's rounding, no runtime's own.

Not modelled: adapters, mixtures of experts, norms of queries and keys, Adafactor's factors, and zero-bubble schedules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tunemark.physics.flops import train_flops_by_role
from tunemark.physics.parameters import parameters as count_parameters
from tunemark.predict.layout import Layout, Workload
from tunemark.predict.prediction import Bytes

# Bytes of a parameter, and of what a matrix product takes and gives, by the worker's name of the precision.
WIDTHS = {"fp32": (4.0, 4.0), "bf16-autocast": (4.0, 2.0), "bf16": (2.0, 2.0)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """One step of the rank that has most of each. sent_bytes: by the axis of the mesh that sends it."""

    flops: float
    sent_bytes: dict[str, float]
    bytes: Bytes


def footprint(work: Workload, layout: Layout) -> Footprint:
    """The step of `work` under `layout`, whose stack must say our worker's precision (`Stack.own`)."""
    stages = [_Stage(work, layout, number) for number in range(layout.pipeline)]
    sent = [stage.sent() for stage in stages]
    return Footprint(
        flops=max(stage.flops() for stage in stages),
        sent_bytes=max(sent, key=lambda each: sum(each.values())),
        bytes=max((held for stage in stages for held in stage.moments()), key=lambda held: held.total),
    )


def is_told(work: Workload) -> bool:
    """Whether the formulas here know the step."""
    return bool(work.stack.own) and not work.architecture.num_local_experts and work.trained_fraction == 1.0


class _Stage:
    """One rank of one stage of a pipeline, or of none."""

    def __init__(self, work: Workload, layout: Layout, number: int) -> None:
        a = self._a = work.architecture
        self._work, self._layout, self._number = work, layout, number
        self._wide, self._narrow = WIDTHS[work.stack.own]
        self._is_autocast = self._wide != self._narrow
        self._is_first, self._is_last = number == 0, number == layout.pipeline - 1
        self._passes = work.global_batch // (layout.data * layout.micro_batch)
        self._layers = _layers(a.num_hidden_layers, layout, number)
        t = layout.tensor
        c = count_parameters(a)
        depth = a.num_hidden_layers
        self._matrices = (c.attention + c.mlp) / depth / t
        norm = c.norm / (depth * a.norms_per_layer + 1)
        self._layer = self._matrices + c.bias / depth / t + a.norms_per_layer * norm
        table = math.ceil(a.vocab_size / t) * a.hidden_size
        has_head = self._is_last and (not a.tie_word_embeddings or layout.pipeline > 1)
        self._ends = (table + c.position) * self._is_first + table * has_head + norm * self._is_last
        self._table = table
        self._own = self._layers * self._layer + self._ends
        self._tokens = float(layout.micro_batch * work.sequence)
        self._between = t if layout.sequence_parallel else 1

    def flops(self) -> float:
        """Multiplications of matrices, as the physics counts them; torch computes a checkpointed layer again but for
        its last product, whose output nobody needs."""
        a, work, layout = self._a, self._work, self._layout
        by = train_flops_by_role(a, work.sequence)
        layer = (by.total - by.head) / a.num_hidden_layers
        if layout.recompute == "full":
            last = 2.0 * a.intermediate_size * a.hidden_size
            layer += layer / 3.0 - last
        elif layout.recompute == "selective":
            layer += by.scores / a.num_hidden_layers / 3.0
        return self._passes * self._tokens * (self._layers * layer + by.head * self._is_last) / layout.tensor

    def sent(self) -> dict[str, float]:
        layout, a = self._layout, self._a
        t, hidden = layout.tensor, self._tokens * self._a.hidden_size
        found = {}
        if t > 1:
            # Forward what a block's last product gives is summed, backward what went into its first ones. Under
            # sequence parallelism a scatter and a gather stand for each sum.
            each = 4.0 * (self._narrow + self._wide)
            if layout.recompute == "full":
                # The layer's last sum is not made again, what its blocks are given is.
                each += self._narrow + 2.0 * self._wide if layout.sequence_parallel else 2.0 * self._narrow
            passing = self._layers * each * hidden
            ends = 2.0 * self._wide * hidden * (self._is_first + self._is_last)
            if layout.sequence_parallel:
                ends += self._wide * hidden * 2.0
            scores = self._narrow * self._tokens * a.vocab_size * self._is_last
            found["tensor"] = self._passes * (passing + ends + scores) * (t - 1) / t
        shard, copies = (layout.shard, layout.data // layout.shard) if layout.zero else (1, layout.data)
        own = self._wide * self._own
        if layout.data > 1:
            sent = 2.0 * own / shard * (copies - 1) / copies
            if shard > 1:
                layers, ends = (2.0 if layout.reshard else 1.0) * self._passes, float(self._passes)
                if layout.pipeline > 1:
                    # A schedule keeps what one backward pass gathered for the next pass of either kind.
                    layers, ends = (self._passes + 1.0 if layout.reshard else 1.0), 1.0
                gathers = layers * self._layers * self._layer + ends * self._ends
                sent += (self._wide * gathers + own) * (shard - 1) / shard
            found["data"] = sent
        if layout.pipeline > 1 and a.tie_word_embeddings and (self._is_first or self._is_last):
            # Both stages that hold the shared weight add up its gradient, in a group of two.
            found["tied"] = self._wide * self._table / shard
        if layout.pipeline > 1:
            found["pipeline"] = self._passes * self._wide * hidden * (2 - self._is_first - self._is_last)
        return found

    def moments(self) -> Iterator[Bytes]:
        """Each moment at which the step can hold most."""
        layout, work, a = self._layout, self._work, self._a
        wide, narrow, tokens = self._wide, self._narrow, self._tokens
        states = {"sgd": 0.0, "adafactor": 0.05}.get(work.optimizer, 2.0)
        shard = layout.shard if layout.zero else 1
        own, layer, ends = wide * self._own, wide * self._layer, wide * self._ends
        parameters, optimizer, whole = own / shard, states * own / shard, own / shard
        scores = tokens * a.vocab_size * self._is_last
        held_scores = narrow * scores
        flights = self._flights()
        kept = self._kept()
        casts = 0.0 if layout.recompute != "none" else self._casts(self._layers, is_whole=True)
        one = self._activations()
        product = tokens * a.intermediate_size / layout.tensor
        matrix = a.hidden_size * a.intermediate_size / layout.tensor
        buffers = 0.0
        if layout.pipeline > 1:
            # A place for each micro-batch that comes, and for each gradient that comes back.
            buffers = self._passes * wide * tokens * a.hidden_size * (2 - self._is_first - self._is_last)
        accumulated = self._passes > 1
        is_bucketed = layout.data > 1 and not layout.zero and layout.tensor == layout.pipeline == 1
        # In a product copies are kept alike by the mechanism of shards, with shards of the whole.
        is_gathered = layout.data > 1 and not is_bucketed
        reshard = layout.reshard and layout.zero == 3
        before = own if is_bucketed or accumulated else 0.0
        if is_gathered and accumulated and self._is_first:
            # Not yet scattered, DTensor's gradient of a cut embedding stands in rows for the whole vocabulary.
            before += (layout.tensor - 1) * wide * self._table
        again = one + self._casts(1) if layout.recompute != "none" else 0.0
        gathered = (ends if reshard else own) if is_gathered else 0.0

        def moment(gradients: float, activations: float, workspace: float, more: float = 0.0) -> Bytes:
            return Bytes(
                parameters=parameters,
                gradients=gradients,
                optimizer=optimizer,
                activations=activations,
                buffers=buffers + more,
                workspace=workspace,
            )

        everything = (kept + casts) * flights
        if self._is_last:
            # Of the scores: as they came, their soft-max, its gradient and theirs, in float32.
            others = (flights - 1) * (narrow + 4.0) * scores
            loss = (narrow + 12.0) * scores
            yield moment(before if layout.schedule != "gpipe" else 0.0, everything, loss + others, gathered)
        # The update takes two temporaries of the largest parameter; of Adafactor and plain descent one.
        largest = wide * max(self._table if self._ends >= self._table else 0.0, matrix) / shard
        yield moment(whole, 0.0, held_scores + (2.0 if states == 2.0 else 1.0) * largest)
        if not is_gathered:
            head = wide * self._table * self._is_last
            gradients = before or min(head, own)
            yield moment(gradients, everything, held_scores + again + 2.0 * narrow * product + wide * matrix)
            table = wide * self._table * self._is_first
            late = before or own - table - (layer - wide * matrix)
            yield moment(late, kept / max(self._layers, 1), held_scores + again + 1.5 * narrow * product)
            return
        # Of a layer half-way: what was gathered of it and of the one before it, what is scattered of the one behind.
        units = 3.0 * layer if reshard else layer - (layer if self._layers > 1 else 0.0)
        fresh = 3.0 * wide * matrix if not accumulated else 0.0
        half = 0.8 if not self._is_autocast else 0.5
        left = max(self._layers - 2.0, 0.0) + half
        temporaries = (wide + narrow * self._is_autocast) * matrix + (0.2 if again else 3.0) * narrow * product
        rest = (kept + casts) * flights * left / max(self._layers, 1)
        if again:
            rest = (kept - self._behind()) * flights * (self._layers - 1.0) / max(self._layers, 1)
        yield moment(
            layer / shard + (own if accumulated else 0.0), rest, held_scores + again + fresh + temporaries,
            gathered + units,
        )  # fmt: skip
        yield moment(whole, 0.0, held_scores, (own if accumulated else ends) + 2.0 * ends + layer)

    def _casts(self, layers: float, *, is_whole: bool = False) -> float:
        """Weights in 16 bits beside those in 32, which autocast makes and autograd keeps."""
        if not self._is_autocast:
            return 0.0
        return self._narrow * (layers * self._matrices + (self._table * self._is_last if is_whole else 0.0))

    def _flights(self) -> float:
        """Micro-batches whose activations are held at once."""
        layout = self._layout
        if layout.pipeline == 1:
            return 1.0
        if layout.schedule == "gpipe":
            return float(self._passes)
        ahead = float(min(self._passes, layout.pipeline - self._number))
        # Narayanan et al. 2021, section 2.2.2.
        return (
            ahead * (1.0 + (layout.pipeline - 1) / (layout.pipeline * layout.virtual)) if layout.virtual > 1 else ahead
        )

    def _kept(self) -> float:
        """Bytes that one micro-batch leaves for its backward pass."""
        a, layout, tokens = self._a, self._layout, self._tokens
        stream = self._wide * tokens * a.hidden_size / self._between
        found = self._layers * (self._activations() if layout.recompute == "none" else stream)
        if layout.recompute == "selective":
            t = layout.tensor
            columns = (a.num_attention_heads + 2 * a.num_key_value_heads) * a.head_dim / t
            columns += (2 if a.gated_mlp else 1) * a.intermediate_size / t
            rows = 2.0 * a.hidden_size * (2.0 if t > 1 else 1.0)
            found += self._layers * self._narrow * tokens * (columns + rows)
        return found + self._behind()

    def _behind(self) -> float:
        """Of a micro-batch, what is kept besides layers: by the last norm or for the next stage, and the mask."""
        values = self._tokens * self._a.hidden_size
        found = self._norm() + self._narrow * values if self._is_last else self._wide * values
        return found + (self._narrow * self._tokens * self._work.sequence if self._work.packed else 0.0)

    def _norm(self) -> float:
        """What a norm keeps, besides its output, which the products behind it keep."""
        a = self._a
        values = self._tokens * a.hidden_size / self._between
        if a.norm_bias:
            return self._wide * values
        # Computed in float32: its input and the normed one, of 16 bits the input's copy and the narrowed normed one.
        return (8.0 if self._wide == 4.0 else 6.0) * values

    def _activations(self) -> float:
        """What one layer keeps of one micro-batch where nothing is computed again."""
        a, t, narrow = self._a, self._layout.tensor, self._narrow
        heads = a.num_attention_heads / t
        queries, keys = heads * a.head_dim, a.num_key_value_heads * a.head_dim / t
        if self._work.packed:
            # With a mask, keys and values are repeated for each group of queries.
            keys = queries
        inner = a.intermediate_size / t
        # Autocast narrows the same input once for each product.
        inputs = a.hidden_size * ((5.0 if a.gated_mlp else 2.0) if self._is_autocast else 2.0)
        # Gate, its activation, up and their product. GPT-2's activation is five operations.
        mlp = inner * (4.0 if a.gated_mlp else 5.0)
        values = inputs + 2.0 * queries + 2.0 * keys + mlp
        return 2.0 * self._norm() + self._tokens * (narrow * values + 4.0 * heads)


def _layers(depth: int, layout: Layout, number: int) -> float:
    """Layers of a rank: the first pieces have one more where not all can be equal."""
    pieces = layout.pipeline * layout.virtual
    each, more = divmod(depth, pieces)
    return float(sum(each + (n < more) for n in range(number, pieces, layout.pipeline)))
