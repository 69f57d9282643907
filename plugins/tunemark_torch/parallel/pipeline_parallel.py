"""Pipeline parallelism of a decoder: each rank keeps some of the layers, in one stage or several.

A stage is the full model with other stages' modules replaced: a layer held elsewhere passes its input through, the
previous stage's output replaces the embedding, and once more the input of the stage's first layer: between the two some
families scale the embedding, which the first stage has already done. Masks, positions and the order of calls so remain
the model's, whatever its family. The micro-batches are those of the step's gradient accumulation.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
import torch.distributed as dist
from torch import nn

from tunemark_torch.parallel import tensor_parallel
from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.decoder import DecoderParts, find_decoder_parts
from tunemark_worker.gradient_norm import local_part, sum_partial_gradient
from tunemark_worker.precision import autocast

# schedule: (class in torch.distributed.pipelining.schedules, whether a rank can hold several stages)
SCHEDULES = {
    "gpipe": ("ScheduleGPipe", False),
    "1f1b": ("Schedule1F1B", False),
    "interleaved": ("ScheduleInterleaved1F1B", True),
    "zb": ("ScheduleInterleavedZeroBubble", True),
    "zbv": ("ScheduleZBVZeroBubble", True),
}


class Pipeline:
    """This rank's stages of a model, and their schedule."""

    def __init__(
        self,
        model: nn.Module,
        mesh: Any,
        options: Mapping[str, str],
        assignment: Assignment,
        *,
        tuple_length: int,
        seq_mesh: Any = None,
    ) -> None:
        """tuple_length: of what a layer returns, 0 for a tensor. seq_mesh: the mesh that shards the sequence between
        blocks, or None."""
        self._a, self._group = assignment, mesh.get_group()
        self._rank, self._ranks = dist.get_rank(self._group), mesh.size()
        self._name = options.get("schedule", "1f1b")
        parts = find_decoder_parts(model)
        self._num_stages = self._ranks * stages_per_rank(options)
        self._bounds = split_layers(len(parts.layers), self._num_stages)
        self._stage_ids = [number for number in range(self._num_stages) if self._rank_of_stage(number) == self._rank]
        self.stages = [
            Stage(parts, self._bounds[n], n == 0, n == self._num_stages - 1, tuple_length, assignment.precision)
            for n in self._stage_ids
        ]
        for stage, number in zip(self.stages, self._stage_ids):
            if seq_mesh is not None and number > 0:
                tensor_parallel.split_sequence_before(parts.layers[self._bounds[number][0]], seq_mesh)
            if seq_mesh is not None and number < self._num_stages - 1:
                # Stages exchange whole sequences: some models reshape the hidden states after the last layer.
                base: Any = getattr(stage.model, parts.base_name)
                tensor_parallel.gather_sequence_after(
                    getattr(base, parts.norm) if parts.norm else parts.layers[self._bounds[number][1] - 1], seq_mesh
                )
        self.module = nn.ModuleList(self.stages)
        self._is_last = self._num_stages - 1 in self._stage_ids
        self._tied_weight = _TiedWeight(parts, self) if parts.is_tied else None
        self._schedule: Any = None
        self._step_options: Dict[str, bool] = {}
        self._scale = torch.ones(())
        self._loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def schedule_stages(self, place: Place) -> None:
        """Make torch's schedule of the stages, after data parallelism has wrapped them in place."""
        from torch.distributed.pipelining import PipelineStage, schedules

        class HostStage(PipelineStage):
            """Without the first exchange, which only NCCL needs: torch 2.9 sends 8 bytes there and receives 4, at which
            gloo aborts."""

            def _get_init_p2p_neighbors_ops(self) -> List[Any]:
                return []

        device = torch.device(place.device)
        kind_of_stage = HostStage if device.type == "cpu" else PipelineStage
        staged = [
            kind_of_stage(stage, number, self._num_stages, device, group=self._group)
            for number, stage in zip(self._stage_ids, self.stages)
        ]
        kind = getattr(schedules, SCHEDULES[self._name][0])
        is_multi_stage = SCHEDULES[self._name][1]
        # torch 2.6 and older never scale gradients, and return the outputs whether one wants them or not.
        sums = {"scale_grads": False} if "scale_grads" in inspect.signature(kind).parameters else {}
        if "return_outputs" in inspect.signature(kind.step).parameters:
            self._step_options = {"return_outputs": False}
        self._schedule = kind(
            staged if is_multi_stage else staged[0],
            self._a.gradient_accumulation,
            loss_fn=lambda output, labels: self._loss(output, labels) * self._scale,
            **sums,
        )

    def facts(self) -> Dict[str, Any]:
        """The schedule and split that were used, for the record."""
        return {
            "schedule": self._name,
            "stages": self._num_stages,
            "layers": [last - first for first, last in self._bounds],
            "micro_batches": self._a.gradient_accumulation,
        }

    def step(
        self, logits: Any, loss: Callable[..., torch.Tensor], batches: Sequence[Batch], scale: torch.Tensor
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches; returns the sum of their losses on every stage."""
        for stage in self.stages:
            stage.logits, stage.is_packed = logits, batches[0].packed
        self._scale, self._loss = scale, loss
        ids, labels, document_ids, positions = (torch.cat(list(each)) for each in list(zip(*batches))[:4])
        named = {"ids": ids, "document_ids": document_ids, "positions": positions}
        losses: List[torch.Tensor] = []
        first = (ids,) if 0 in self._stage_ids else ()
        if self._is_last:
            self._schedule.step(*first, target=labels, losses=losses, **self._step_options, **named)
        else:
            self._schedule.step(*first, **self._step_options, **named)
        if self._tied_weight is not None:
            self._tied_weight.sum_gradients()
        total = torch.zeros((), device=ids.device)
        if losses:
            total += torch.stack([each.detach() for each in losses]).sum() / scale
        dist.all_reduce(total, group=self._group)
        return total

    def duplicate_parameters(self) -> List[nn.Parameter]:
        """Parameters of this rank that another stage already counts in the gradient norm."""
        return self._tied_weight.duplicate_parameters() if self._tied_weight is not None else []

    def _rank_of_stage(self, number: int) -> int:
        """The rank that holds a stage: round robin, or for zbv alternately forwards and backwards."""
        turn, rank = divmod(number, self._ranks)
        rank = int(rank)
        return self._ranks - 1 - rank if self._name == "zbv" and turn % 2 else rank


class Stage(nn.Module):
    """A model with only some of its layers. tuple_length: of what a layer returns, 0 for a tensor. logits: the model
    runtime's function that calls it."""

    def __init__(
        self,
        parts: DecoderParts,
        bounds: Tuple[int, int],
        is_first: bool,
        is_last: bool,
        tuple_length: int,
        precision: str,
    ) -> None:
        super().__init__()
        self._precision, self._is_last = precision, is_last
        self.logits: Any = None
        self.is_packed = False
        self.output_module: Optional[StageOutput] = None
        self.model, base = _shallow_copy(parts.top), _shallow_copy(parts.base)
        self.model._modules[parts.base_name] = base
        first, last = bounds
        base._modules[parts.layers_name] = nn.ModuleList(
            layer if first <= n < last else PassThroughLayer(layer, tuple_length)
            for n, layer in enumerate(parts.layers)
        )
        if not is_first:
            base._modules[parts.embedding] = StageInput(getattr(parts.base, parts.embedding))
            for name in parts.positions:
                base._modules[name] = ZeroPositions()
            layers: Any = base._modules[parts.layers_name]
            layers[0].register_forward_pre_hook(self._receive, with_kwargs=True)
        if not is_last:
            self.model._modules[parts.head] = self.output_module = StageOutput(getattr(parts.top, parts.head))
            if parts.norm:
                base._modules[parts.norm] = nn.Identity()
        self.input_module = None if is_first else base._modules[parts.embedding]

    def _receive(self, layer: nn.Module, inputs: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        """Before the first of all layers, which another stage holds: its input is what the previous stage sent."""
        hidden = self.input_module.hidden  # type: ignore[union-attr]  # not of the first stage
        return ((hidden, *inputs[1:]), named) if inputs else (inputs, {**named, "hidden_states": hidden})

    def forward(
        self, hidden: torch.Tensor, ids: torch.Tensor, document_ids: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """hidden: the previous stage's output; on the first stage the token ids."""
        if self.input_module is not None:
            self.input_module.hidden = hidden
        batch = Batch(ids, ids, document_ids, positions, self.is_packed)
        with autocast(self._precision, ids.device.type):
            output: torch.Tensor = self.logits(self.model, batch)
        if self.output_module is not None:
            # Take the hidden states from before what the model does to its logits, such as soft-capping.
            output, self.output_module.hidden = self.output_module.hidden, None
        # Zero-bubble schedules detach a stage's output in place, which torch refuses for a view.
        return output.clone() if output._is_view() and not self._is_last else output


class StageInput(nn.Module):
    """Replaces the embedding: returns the previous stage's output. weight: as `StageOutput`'s."""

    hidden: torch.Tensor

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.weight = _empty_like(embedding.weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.hidden


class StageOutput(nn.Module):
    """Replaces the head: keeps the hidden states for the next stage. weight: without content; some models cast or move
    tensors to its dtype and device first."""

    hidden: Any = None

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.weight = _empty_like(head.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.hidden = hidden
        return hidden


def _empty_like(weight: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=weight.dtype, device=weight.device)


class ZeroPositions(nn.Module):
    """Replaces a learned position embedding, which the first stage has already added."""

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """Called with positions, or with a mask to count them by."""
        given = next(each for each in (*inputs, *named.values()) if isinstance(each, torch.Tensor))
        return torch.zeros((), device=given.device)


class PassThroughLayer(nn.Module):
    """Replaces a layer that another stage holds: returns its input, in a tuple with None for what layers return besides
    if `tuple_length` is not 0."""

    def __init__(self, layer: nn.Module, tuple_length: int) -> None:
        super().__init__()
        self._tuple_length = tuple_length
        # Attributes that a model reads from its layers, such as the kind of attention.
        plain = {k: v for k, v in vars(layer).items() if isinstance(v, (str, int, float)) and not k.startswith("_")}
        self.__dict__.update({k: v for k, v in plain.items() if k != "training"})

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states, *[None] * (self._tuple_length - 1)) if self._tuple_length else hidden_states


class _TiedWeight:
    """A weight tied between embedding and head, of which the first and the last stage hold a copy each.

    The copies start equal and get the same update, from the sum of both gradients."""

    def __init__(self, parts: DecoderParts, pipeline: Pipeline) -> None:
        self._head, self._base, self._embedding = parts.head, parts.base_name, parts.embedding
        self._pipeline = pipeline
        holders = [pipeline._rank_of_stage(0), pipeline._rank_of_stage(pipeline._num_stages - 1)]
        self._is_split = holders[0] != holders[1]
        self._group = _new_pair_group(pipeline._group, holders) if self._is_split else None
        stages = pipeline.stages
        if self._is_split and pipeline._is_last:
            # The embedding is on another rank, so the head needs its own copy of the weight.
            head: Any = stages[-1].model._modules[parts.head]
            head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)

    def _weight(self) -> Optional[nn.Parameter]:
        """This rank's copy, looked up on each call because sharding replaces the parameter."""
        holder: Any = None
        if self._pipeline._is_last:
            holder = getattr(self._pipeline.stages[-1].model, self._head)
        elif 0 in self._pipeline._stage_ids:
            holder = getattr(getattr(self._pipeline.stages[0].model, self._base), self._embedding)
        return None if holder is None else holder.weight

    def sum_gradients(self) -> None:
        weight = self._weight()
        # With adapters the weight is frozen and has no gradient.
        if self._is_split and weight is not None and weight.requires_grad:
            # The two gradients may be placed differently over a stage's ranks: redistribute both as the weight is.
            sum_partial_gradient(weight)
            assert weight.grad is not None, "a stage's weight has a gradient after its backward"
            dist.all_reduce(local_part(weight.grad), group=self._group)

    def duplicate_parameters(self) -> List[nn.Parameter]:
        weight = self._weight()
        return [weight] if self._is_split and self._pipeline._is_last and weight is not None else []


def stages_per_rank(options: Mapping[str, str]) -> int:
    """How many stages a rank holds, by the strategy's options."""
    return int(options.get("virtual", "2")) if SCHEDULES[options.get("schedule", "1f1b")][1] else 1


def split_layers(layers: int, stages: int) -> List[Tuple[int, int]]:
    """(first, past-the-last) layer of each stage; the first stages get one more where layers do not divide evenly."""
    each, more = divmod(layers, stages)
    sizes = [each + (n < more) for n in range(stages)]
    return [(sum(sizes[:n]), sum(sizes[: n + 1])) for n in range(stages)]


def _new_pair_group(group: Any, ranks: Sequence[int]) -> Any:
    """A process group of two of this pipeline's ranks. All processes create all such groups, in the same order."""
    everyone: List[Any] = [None] * dist.get_world_size()
    mine = [dist.get_process_group_ranks(group)[rank] for rank in ranks]
    dist.all_gather_object(everyone, mine)
    found = None
    for pair in sorted({tuple(each) for each in everyone}):
        made = dist.new_group(list(pair))
        if list(pair) == mine:
            found = made
    return found


def _shallow_copy(module: nn.Module) -> nn.Module:
    """A shallow copy of a module, whose children can be replaced without changing the original's."""
    made = copy.copy(module)
    for name, value in list(vars(made).items()):
        if isinstance(value, dict):
            made.__dict__[name] = copy.copy(value)
    return made
