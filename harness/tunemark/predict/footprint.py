"""What a step of our own worker computes, sends and holds, in closed formulas: no machine enters here.

Every storage that torch's eager operators keep is accounted for as those of transformers' decoders keep it; the terms
were read off the steps that `simulated` counts and hold against them (`benchmarks/engines.py`). Memory is taken at the
few moments at which a step can hold most. It is what tensors hold: no allocator's rounding, no runtime's own.

Not modelled: mixtures of experts, and attention of several operators (Gemma 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunemark.physics.flops import hardware_flops_per_token, train_flops_by_role
from tunemark.physics.parameters import adapters, lora_parameters
from tunemark.physics.parameters import parameters as count_parameters
from tunemark.predict.layout import Layout, Workload
from tunemark.predict.prediction import Bytes

# Bytes of a parameter, and of what a matrix product takes and gives, by the worker's name of the precision.
WIDTHS = {"fp32": (4.0, 4.0), "bf16-autocast": (4.0, 2.0), "bf16": (2.0, 2.0)}


# Families whose queries, keys and values, and gate and up, are one product each; of these, those with rotary positions.
_FUSED = ("phi3", "gpt2")
_ROTATED = ("phi3",)
# Families whose attention is no operator of torch, but several.
_EAGER = ("gemma2",)
# Families whose blocks end in a norm, and whose norms are scaled before they are narrowed.
_NORMED_BEHIND = ("olmo2", "gemma2")


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
    if work.architecture.model_type in _EAGER:
        return False
    is_named = work.trained_fraction == 1.0 or work.trained.lora_rank > 0
    return bool(work.stack.own) and not work.architecture.num_local_experts and is_named


class _Stage:
    """One rank of one stage of a pipeline, or of none."""

    def __init__(self, work: Workload, layout: Layout, number: int) -> None:
        a = self._a = work.architecture
        self._work, self._layout, self._number = work, layout, number
        self._wide, self._narrow = WIDTHS[work.stack.own]
        self._is_autocast = self._wide != self._narrow
        self._pieces = _pieces(layout, number)
        self._is_first, self._is_last = 0 in self._pieces, layout.pipeline * layout.virtual - 1 in self._pieces
        self._passes = work.global_batch // (layout.data * layout.micro_batch)
        self._layers = _layers(a.num_hidden_layers, layout, self._pieces)
        t = layout.tensor
        c = count_parameters(a)
        depth = a.num_hidden_layers
        self._matrices = (c.attention + c.mlp) / depth / t
        norm = c.norm / (depth * a.norms_per_layer + 1)
        self._layer = self._matrices + c.bias / depth / t + a.norms_per_layer * norm
        table = math.ceil(a.vocab_size / t) * a.hidden_size
        # Where both ends are here, a tied weight is one.
        self._is_apart = a.tie_word_embeddings and self._is_first != self._is_last
        has_head = self._is_last and (not a.tie_word_embeddings or self._is_apart)
        self._ends = (table + c.position) * self._is_first + table * has_head + norm * self._is_last
        self._table = table
        rank, targets = work.trained.lora_rank, work.trained.lora_targets
        # Adapters of a layer, and the names of the matrices that they stand beside; none where all is trained.
        self._adapted = {part for each in adapters(a, targets) for part in each.parts} if rank else set()
        self._adapters = adapters(a, targets) if rank else ()
        self._rank = rank
        added = lora_parameters(a, rank, targets) / depth if rank else 0.0
        self._layer += added
        self._own = self._layers * self._layer + self._ends
        # Parameters with a gradient: of a layer, and of the rank.
        self._layer_trained = added if rank else self._layer
        self._own_trained = self._layers * added if rank else self._own
        self._tokens = float(layout.micro_batch * work.sequence)
        self._between = t if layout.sequence_parallel else 1

    def flops(self) -> float:
        """Multiplications of matrices, as the physics counts them; torch computes a checkpointed layer again but for
        its last product, whose output nobody needs."""
        a, trained, layout, sequence = self._a, self._work.trained, self._layout, self._work.sequence
        by = train_flops_by_role(a, sequence, trained=trained)
        layers, count = by.total - by.head, self._layers
        if self._rank:
            # Behind frozen weights alone no gradient of a first layer's input is wanted: it has less to do.
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
            if self._rank and "down_proj" in self._adapted:
                last = 2.0 * self._rank * a.hidden_size
            if a.model_type in _NORMED_BEHIND:
                last = 0.0
            done -= count * last
        return self._passes * self._tokens * (done + by.head * self._is_last) / layout.tensor

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
        own = self._wide * self._own_trained
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
        if self._is_apart and not self._rank:
            # Both stages that hold the shared weight add up its gradient, in a group of two.
            found["tied"] = self._wide * self._table / shard
        if layout.pipeline > 1:
            found["pipeline"] = self._passes * self._wide * hidden * self._messages()
        return found

    def moments(self) -> Iterator[Bytes]:
        """Each moment at which the step can hold most: the loss, the head's backward pass, moments within that of the
        last, the second and the first layer, that of the embedding, what ends data parallelism, and the update.

        Between layers everything changes evenly, so that no layer between these can be the one."""
        layout, work, a = self._layout, self._work, self._a
        wide, narrow, tokens = self._wide, self._narrow, self._tokens
        states = {"sgd": 0.0, "adafactor": 0.0}.get(work.optimizer, 2.0)
        shard = layout.shard if layout.zero else 1
        own, layer, ends = wide * self._own, wide * self._layer, wide * self._ends
        trained, is_full = wide * self._own_trained, not self._rank
        layer_trained = wide * self._layer_trained
        ends_trained = ends * is_full
        parameters, optimizer, whole = own / shard, states * trained / shard, trained / shard
        scores = tokens * a.vocab_size * self._is_last
        held_scores = narrow * scores
        product = narrow * tokens * a.intermediate_size / layout.tensor
        matrix = wide * a.hidden_size * a.intermediate_size / layout.tensor * is_full
        # A gradient of a weight comes in the precision of its product.
        narrowed = narrow / wide if self._is_autocast else 0.0
        table = wide * self._table * is_full
        stream = (wide + narrow * self._is_autocast) * tokens * a.hidden_size
        buffers = 0.0
        if layout.pipeline > 1:
            # A place for each micro-batch that comes, and for each gradient that comes back.
            neighbours = 2 * layout.virtual - self._is_first - self._is_last
            buffers = self._passes * wide * tokens * a.hidden_size * neighbours
        accumulated = self._passes > 1
        is_bucketed = layout.data > 1 and not layout.zero and layout.tensor == layout.pipeline == 1
        # In a product copies are kept alike by the mechanism of shards, with shards of the whole.
        is_gathered = layout.data > 1 and not is_bucketed
        reshard = layout.reshard and layout.zero == 3
        is_tied = a.tie_word_embeddings and self._is_first and self._is_last
        bucket = trained if is_bucketed else 0.0

        def moment(gradients: float, activations: float, workspace: float, gathered: float = 0.0) -> Bytes:
            return Bytes(
                parameters=parameters,
                gradients=bucket + gradients,
                optimizer=optimizer,
                activations=activations,
                buffers=buffers + gathered * is_gathered,
                workspace=workspace,
            )

        flights, depth = self._flights(), self._layers
        is_kept = layout.recompute == "none"
        layers, mask, one = self._kept() - self._behind(), self._mask(), self._activations()
        casts, head_cast = self._casts(1), narrow * self._table * self._is_last * self._is_autocast
        everything = self._kept() + casts * depth * is_kept + head_cast
        # Of a layer, what its MLP leaves, and what is computed again of it.
        count = 3.0 if a.gated_mlp else 2.0
        part = narrow * tokens * self._mlp() + self._norm()
        if self._is_autocast:
            part += narrow * count * a.hidden_size * a.intermediate_size / layout.tensor
        again = 0.0
        if not is_kept:
            again = one + casts - (layers / max(depth, 1.0) if layout.recompute == "selective" else 0.0)
        root = ends if reshard else own
        # A norm is differentiated in float32, by several operators.
        normed = 0.0 if a.norm_bias else 20.0 * tokens * a.hidden_size / self._between
        is_piped, is_behind = layout.pipeline > 1, layout.schedule == "gpipe"
        # The first backward pass, and one that adds to the gradients of those before: then a micro-batch less is under
        # way, unless another came meanwhile.
        passes = [(False, flights)]
        if accumulated:
            passes.append((True, flights if self._passes > flights else flights - 1.0 / layout.virtual))
        for is_later, under_way in passes:
            before = trained if is_later else 0.0
            if is_later and self._is_first and is_full and not is_tied:
                # Not yet summed up, DTensor's gradient of a cut embedding stands in rows for the whole vocabulary.
                before += (layout.tensor - 1) * table
            # Gradients stay where they are formed, unless they are added to those before or copied into a bucket.
            stays = float(not is_later and (accumulated or not is_bucketed))
            others = (under_way - 1.0) * everything
            # Of all micro-batches of a schedule that goes forward first, scores and their soft-max are there already.
            held = held_scores + (under_way - 1.0) * (narrow + 4.0) * scores * is_behind
            if is_gathered and not (is_later and is_piped):
                # The last layer's weights come and are copied into place; what the ones before came in is still there.
                came = (2.0 + (depth > 1.0)) * layer - (0.0 if reshard else layer)
                so_far = others + everything - self._behind() - layers / max(depth, 1.0) - casts * is_kept - head_cast
                so_far += casts * (depth - 1.0) * (not is_kept)
                yield moment(before, so_far, held_scores * is_later, root + came)
            if self._is_last:
                # Autocast keeps its copies of the weights until the end of the forward pass, and what the last layer's
                # weights came in is let go there. Tensor ranks have gathered scores, and then put in order.
                copies = casts * depth * (not is_kept)
                gathers = (1.0 + 1.0 / layout.tensor) * held_scores if layout.tensor > 1 else 0.0
                if not (is_later and is_behind):
                    # The scores before are there until these take their name.
                    gathers += held_scores * (is_later and not is_piped)
                    yield moment(before, others + everything + copies, held + gathers, root + layer)
                # Of the scores: as they came, their soft-max, its gradient and theirs, in float32.
                yield moment(before, others + everything, held + 12.0 * scores, own if is_later and is_behind else root)
                kept = own if is_later and is_behind else root + layer * reshard
                # Once a product's gradients are there, what it kept is let go; then the weight's is widened.
                yield moment(before, others + everything, held + held_scores + table + stream, kept)
            elif not is_kept:
                yield moment(before, others + everything + casts * depth, held, root)
            # Whether each layer's gradients are scattered as they are there: in the last backward pass.
            ends_with = is_gathered and not is_piped
            kinds = [ends_with and is_later == accumulated]
            if ends_with and is_later and self._passes > 2:
                kinds.append(False)
            for is_scattered, behind in itertools.product(
                kinds, sorted({0.0, min(1.0, depth - 1.0), max(depth - 2.0, 0.0), depth - 1.0})
            ):
                left = layers * (depth - behind) / max(depth, 1.0) + again + mask + others
                left += casts * (depth - behind) * is_kept
                done = behind * layer_trained + table * (self._is_last and not is_tied)
                # In the backward pass weights are let go behind it, but in a pipeline.
                gathered = own - behind * layer * (not is_piped)
                if reshard and not (is_later and is_behind and is_piped):
                    # The layer's weights, those of the one before it as they came, and of a pipeline those behind it.
                    gathered = ends + (1.0 + behind * is_piped + (behind < depth - 1)) * layer
                formed = before + stays * done
                if is_scattered:
                    formed = table * (self._is_last and not is_tied) * (not is_later) + behind * layer_trained / shard
                    formed += max(before - behind * layer_trained, 0.0)
                elif is_bucketed and is_later and self._passes == 2:
                    formed = max(before - done, 0.0)
                formed += table * is_tied
                if is_scattered and behind:
                    # What was sent of the layer behind is let go when this one's is sent.
                    gathered += layer_trained
                if is_piped and reshard and not (is_later and is_behind):
                    # What has come is copied into its place.
                    yield moment(formed, left - again, held + stream, ends + (2.0 + behind) * layer)
                fresh = (1.0 + narrowed) * matrix
                kept = product + matrix if not narrowed else max(product + narrowed * matrix, matrix)
                yield moment(formed, left, held + stream + kept, gathered)
                yield moment(formed, left, held + stream + 2.0 * product + stays * matrix, gathered)
                most = stays * (count - 1.0) * matrix + fresh
                yield moment(formed, left - part, held + stream + most + product, gathered)
                now = left - one - casts
                yield moment(formed, now, held + stream + normed + stays * layer_trained, gathered)
                if is_scattered:
                    # Copied into what is sent: then the layer's own weights are let go.
                    copied = (1.0 + stays) * layer_trained
                    gone = layer + layer_trained * (behind > 0)
                    yield moment(formed, now, held + stream + copied, gathered - gone)
            if is_full and self._is_first:
                # The embedding's gradient, of tensor ranks in rows for the whole vocabulary; a tied one is then cut,
                # and added to the head's.
                t = layout.tensor
                fresh = ((t + 3.0 if t > 1 else 3.0) if is_tied else t) * table
                last = own if is_piped else ends
                formed = before or (own - table) * stays
                if is_gathered and not is_piped and not accumulated:
                    formed = (own - ends) / shard + ends - table
                    last += layer
                yield moment(formed, others + mask, held + fresh, last)
        if is_gathered and not is_piped:
            # The ends' gradients are copied into what is sent, and that is copied again by whoever sends it.
            sent = 2.0 * ends_trained
            yield moment((trained - ends_trained) / shard, 0.0, held_scores + sent)
            yield moment(whole, 0.0, held_scores + sent)
        elif is_gathered:
            yield moment(trained, 0.0, held_scores + ends_trained, own - ends)
            rest = trained - ends_trained + ends_trained / shard
            yield moment(rest, 0.0, held_scores + 2.0 * ends_trained, own - ends)
        # The update takes two temporaries of the largest parameter; of Adafactor and plain descent one.
        largest = max(table if self._ends >= self._table else 0.0, matrix) / shard
        yield moment(whole * (not is_bucketed), 0.0, held_scores + (2.0 if states == 2.0 else 1.0) * largest)

    def _casts(self, layers: float, *, is_whole: bool = False) -> float:
        """Weights in 16 bits beside those in 32, which autocast makes and autograd keeps."""
        if not self._is_autocast:
            return 0.0
        return self._narrow * (layers * self._matrices + (self._table * self._is_last if is_whole else 0.0))

    def _messages(self) -> int:
        """Hidden states and gradients of them that the rank sends for each micro-batch: to the holder of the piece
        behind and of the piece before, where that is another rank."""
        last = self._layout.pipeline * self._layout.virtual - 1
        beside = [n for piece in self._pieces for n in (piece - 1, piece + 1) if 0 <= n <= last]
        return sum(n not in self._pieces for n in beside)

    def _flights(self) -> float:
        """Micro-batches whose activations are held at once, over all pieces."""
        layout, passes, number = self._layout, self._passes, self._number
        p, v = layout.pipeline, layout.virtual
        if p == 1:
            return 1.0
        if layout.schedule == "gpipe":
            return float(passes)
        if layout.schedule == "zbv":
            return float(min(passes, p))
        # Pieces that go forward before the first goes back, in rounds of about as many micro-batches as there are ranks
        # (Narayanan et al. 2021, section 2.2.2).
        each = passes // max(1, passes // p)
        ahead = (v - 1) * each + (1 if v == 1 or layout.schedule == "zb" else 2) * (p - 1 - number)
        if layout.schedule == "zb":
            # Gradients of weights follow those of inputs later by as many pieces as there are ranks before.
            ahead += number
        return min(passes * v, ahead + 1) / v

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
        return found + self._mask()

    def _mask(self) -> float:
        return self._narrow * self._tokens * self._work.sequence if self._work.packed else 0.0

    def _mlp(self) -> float:
        """Values of each token that a layer's MLP keeps, what enters it included."""
        a = self._a
        inner = a.intermediate_size / self._layout.tensor
        inputs = a.hidden_size * (2.0 if self._is_autocast and a.gated_mlp and a.model_type not in _FUSED else 1.0)
        return inputs + inner * (4.0 if a.gated_mlp else 5.0)

    def _norm(self) -> float:
        """What a norm keeps, besides its output, which the products behind it keep."""
        a = self._a
        values = self._tokens * a.hidden_size / self._between
        if a.norm_bias:
            return self._wide * values
        # Computed in float32: its input and the normed one, of 16 bits the input's copy and the narrowed normed one.
        # The normed one is for the gradient of the weight.
        if self._rank:
            return 4.0 * values
        return (8.0 if self._wide == 4.0 or a.model_type in _NORMED_BEHIND else 6.0) * values

    def _activations(self) -> float:
        """What one layer keeps of one micro-batch where nothing is computed again."""
        a, t, narrow = self._a, self._layout.tensor, self._narrow
        heads = a.num_attention_heads / t
        queries, own = heads * a.head_dim, a.num_key_value_heads * a.head_dim / t
        keys = own
        if self._work.packed:
            # With a mask, keys and values are repeated for each group of queries.
            keys = queries
        inner = a.intermediate_size / t
        is_fused = a.model_type in _FUSED
        # Autocast narrows the same input once for each product.
        inputs = a.hidden_size * (5.0 if self._is_autocast and a.gated_mlp and not is_fused else 2.0)
        # Gate, its activation, up and their product. GPT-2's activation is five operations.
        mlp = inner * (4.0 if a.gated_mlp else 5.0)
        if self._rank:
            # Frozen matrices need no input; adapters do, each narrows its own.
            blocks = [each.parts[0] in ("gate_proj", "up_proj") for each in self._adapters
                      if each.parts[0] not in ("o_proj", "down_proj")]  # fmt: skip
            inputs = a.hidden_size * len(blocks if self._is_autocast else {*blocks})
            mlp -= inner * ("down_proj" not in self._adapted)
            if self._is_autocast and "o_proj" in self._adapted:
                inputs += queries
            inputs += self._rank * len(self._adapters)
        values = inputs + 2.0 * queries + 2.0 * keys + mlp
        if is_fused and a.model_type in _ROTATED and not (self._work.packed and own < queries):
            # Values are a view of what one product gave; turned queries and keys are new beside it.
            values += queries + own
        normed = 0.0
        if a.qk_norm:
            normed = (8.0 if narrow == 4.0 or a.model_type in _NORMED_BEHIND else 6.0) * (queries + own)
            if self._rank:
                normed = 4.0 * (queries + own)
        return 2.0 * self._norm() + self._tokens * (narrow * values + normed + 4.0 * heads)


def _pieces(layout: Layout, number: int) -> tuple[int, ...]:
    """The pieces of the model that a rank of the pipeline holds: in turn, or one from either end."""
    if layout.schedule == "zbv":
        return (number, 2 * layout.pipeline - 1 - number)
    return tuple(range(number, layout.pipeline * layout.virtual, layout.pipeline))


def _layers(depth: int, layout: Layout, pieces: tuple[int, ...]) -> float:
    """Layers of a rank: the first pieces have one more where not all can be equal."""
    each, more = divmod(depth, layout.pipeline * layout.virtual)
    return float(sum(each + (n < more) for n in pieces))
