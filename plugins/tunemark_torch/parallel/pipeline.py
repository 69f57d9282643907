"""Pipeline parallelism of a decoder: each rank keeps some of the layers, in one stage or several.

A stage is the whole model with what is not its own taken out: a layer that is elsewhere passes its input on, and what
the stage before has sent stands in for the embedding. So masks, positions and the order of calls stay the model's own,
whatever its family. The micro-batches are those of the step's gradient accumulation.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
import torch.distributed as dist
from torch import nn

from tunemark_torch.parallel import tensor
from tunemark_worker import optimizer as optimizing
from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.decoder import Decoder, decoder
from tunemark_worker.norm import add_up, local

# schedule: (class in torch.distributed.pipelining.schedules, whether a rank can hold several stages)
SCHEDULES = {
    "gpipe": ("ScheduleGPipe", False),
    "1f1b": ("Schedule1F1B", False),
    "interleaved": ("ScheduleInterleaved1F1B", True),
    "zb": ("ScheduleInterleavedZeroBubble", True),
    "zbv": ("ScheduleZBVZeroBubble", True),
}


class Pipeline:
    """This rank's stages of a model and their schedule."""

    def __init__(
        self,
        model: nn.Module,
        mesh: Any,
        options: Mapping[str, str],
        assignment: Assignment,
        *,
        returns_tuple: bool,
        cut_by: Any = None,
    ) -> None:
        """cut_by: the mesh that divides the sequence between blocks, where there is one."""
        self._a, self._group = assignment, mesh.get_group()
        self._rank, self._ranks = dist.get_rank(self._group), mesh.size()
        self._name = options.get("schedule", "1f1b")
        each = int(options.get("virtual", "2")) if SCHEDULES[self._name][1] else 1
        parts = decoder(model)
        self._count = self._ranks * each
        self._bounds = cuts(len(parts.layers), self._count)
        self._numbers = [number for number in range(self._count) if self._holder(number) == self._rank]
        self.stages = [
            Stage(parts, self._bounds[n], n == 0, n == self._count - 1, returns_tuple, assignment)
            for n in self._numbers
        ]
        for stage, number in zip(self.stages, self._numbers):
            if cut_by is not None and number > 0:
                tensor.split_before(parts.layers[self._bounds[number][0]], cut_by)
            if cut_by is not None and number < self._count - 1:
                # What is handed on is whole: some models shape it after the last layer.
                base: Any = getattr(stage.model, parts.base_name)
                tensor.gather_after(
                    getattr(base, parts.norm) if parts.norm else parts.layers[self._bounds[number][1] - 1], cut_by
                )
        self.module = nn.ModuleList(self.stages)
        self._is_last = self._count - 1 in self._numbers
        self._tied = _Tie(parts, self) if parts.is_tied else None
        self._schedule: Any = None
        self._scale = torch.ones(())
        self._loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def schedule_stages(self, place: Place) -> None:
        """Make torch's schedule of the stages, which may have been wrapped in place meanwhile."""
        from torch.distributed.pipelining import PipelineStage, schedules

        device = torch.device(place.device)
        staged = [
            PipelineStage(stage, number, self._count, device, group=self._group)
            for number, stage in zip(self._numbers, self.stages)
        ]
        kind = getattr(schedules, SCHEDULES[self._name][0])
        several = SCHEDULES[self._name][1]
        self._schedule = kind(
            staged if several else staged[0],
            self._a.gradient_accumulation,
            loss_fn=lambda output, labels: self._loss(output, labels) * self._scale,
            scale_grads=False,
        )

    def facts(self) -> Dict[str, Any]:
        """What was truly chosen, for the record."""
        return {
            "schedule": self._name,
            "stages": self._count,
            "layers": [last - first for first, last in self._bounds],
            "micro_batches": self._a.gradient_accumulation,
        }

    def step(
        self, logits: Any, loss: Callable[..., torch.Tensor], batches: Sequence[Batch], scale: torch.Tensor
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches; returns the sum of their losses, the same on every stage."""
        for stage in self.stages:
            stage.logits, stage.is_packed = logits, batches[0].packed
        self._scale, self._loss = scale, loss
        ids, labels, document_ids, positions = (torch.cat(list(each)) for each in list(zip(*batches))[:4])
        named = {"ids": ids, "document_ids": document_ids, "positions": positions}
        losses: List[torch.Tensor] = []
        first = (ids,) if 0 in self._numbers else ()
        if self._is_last:
            self._schedule.step(*first, target=labels, losses=losses, return_outputs=False, **named)
        else:
            self._schedule.step(*first, return_outputs=False, **named)
        if self._tied is not None:
            self._tied.sum_gradients()
        total = torch.zeros((), device=ids.device)
        if losses:
            total += torch.stack([each.detach() for each in losses]).sum() / scale
        dist.all_reduce(total, group=self._group)
        return total

    def counted_elsewhere(self) -> List[nn.Parameter]:
        """Parameters of this rank whose gradients count on another stage."""
        return self._tied.counted_elsewhere() if self._tied is not None else []

    def _holder(self, number: int) -> int:
        """The rank that holds a stage: in turn, or for zbv down and up again."""
        turn, at = divmod(number, self._ranks)
        at = int(at)
        return self._ranks - 1 - at if self._name == "zbv" and turn % 2 else at


class Stage(nn.Module):
    """A model of which only some layers are here. logits: how the model is asked for its scores."""

    def __init__(
        self,
        parts: Decoder,
        bounds: Tuple[int, int],
        is_first: bool,
        is_last: bool,
        returns_tuple: bool,
        assignment: Assignment,
    ) -> None:
        super().__init__()
        self._a, self._is_last = assignment, is_last
        self.logits: Any = None
        self.is_packed = False
        self.handed: Optional[Handed] = None
        self.model, base = _shell(parts.top), _shell(parts.base)
        self.model._modules[parts.base_name] = base
        first, last = bounds
        base._modules[parts.layers_name] = nn.ModuleList(
            layer if first <= n < last else Elsewhere(layer, returns_tuple) for n, layer in enumerate(parts.layers)
        )
        if not is_first:
            base._modules[parts.embedding] = Received()
            for name in parts.positions:
                base._modules[name] = Nothing()
        if not is_last:
            self.model._modules[parts.head] = self.handed = Handed()
            if parts.norm:
                base._modules[parts.norm] = nn.Identity()
        self.received = None if is_first else base._modules[parts.embedding]

    def forward(
        self, hidden: torch.Tensor, ids: torch.Tensor, document_ids: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """hidden: what the stage before has sent, or on the first one the ids."""
        if self.received is not None:
            self.received.hidden = hidden
        batch = Batch(ids, ids, document_ids, positions, self.is_packed)
        with optimizing.autocast(self._a.precision, ids.device.type):
            output: torch.Tensor = self.logits(self.model, batch)
        if self.handed is not None:
            # What a model does to its scores, such as capping them, is not done to what is handed on.
            output, self.handed.hidden = self.handed.hidden, None
        # Zero-bubble schedules detach what a stage gives in place, which torch refuses of a view.
        return output.clone() if output._is_view() and not self._is_last else output


class Received(nn.Module):
    """In the embedding's place: what the stage before has sent."""

    hidden: torch.Tensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.hidden


class Handed(nn.Module):
    """In the head's place: keeps what the next stage needs."""

    hidden: Any = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.hidden = hidden
        return hidden


class Nothing(nn.Module):
    """In the place of a table of positions, which the first stage has added."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), device=positions.device)


class Elsewhere(nn.Module):
    """In the place of a layer that another stage holds."""

    def __init__(self, layer: nn.Module, returns_tuple: bool) -> None:
        super().__init__()
        self._returns_tuple = returns_tuple
        # What a model asks its layers for, such as the kind of their attention.
        plain = {k: v for k, v in vars(layer).items() if isinstance(v, (str, int, float)) and not k.startswith("_")}
        self.__dict__.update({k: v for k, v in plain.items() if k != "training"})

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._returns_tuple else hidden_states


class _Tie:
    """A weight that is the embedding's and the head's, which the first and the last stage hold a copy of each.

    Both start alike and take the same update, by the sum of both gradients."""

    def __init__(self, parts: Decoder, pipeline: Pipeline) -> None:
        self._head, self._base, self._embedding = parts.head, parts.base_name, parts.embedding
        self._pipeline = pipeline
        holders = [pipeline._holder(0), pipeline._holder(pipeline._count - 1)]
        self._is_apart = holders[0] != holders[1]
        self._group = _pair(pipeline._group, holders) if self._is_apart else None
        stages = pipeline.stages
        if self._is_apart and pipeline._is_last:
            # The embedding is not here, so that the head's weight is its own.
            head: Any = stages[-1].model._modules[parts.head]
            head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)

    def _weight(self) -> Optional[nn.Parameter]:
        """This rank's copy: looked up anew, because sharding puts another parameter in its place."""
        holder: Any = None
        if self._pipeline._is_last:
            holder = getattr(self._pipeline.stages[-1].model, self._head)
        elif 0 in self._pipeline._numbers:
            holder = getattr(getattr(self._pipeline.stages[0].model, self._base), self._embedding)
        return None if holder is None else holder.weight

    def sum_gradients(self) -> None:
        weight = self._weight()
        # Beside adapters it is frozen, and has no gradient.
        if self._is_apart and weight is not None and weight.requires_grad:
            # The embedding's and the head's may be laid out otherwise over the ranks of a stage: both as the weight.
            add_up(weight)
            assert weight.grad is not None, "a stage's weight has a gradient after its backward"
            dist.all_reduce(local(weight.grad), group=self._group)

    def counted_elsewhere(self) -> List[nn.Parameter]:
        weight = self._weight()
        return [weight] if self._is_apart and self._pipeline._is_last and weight is not None else []


def cuts(layers: int, stages: int) -> List[Tuple[int, int]]:
    """First and past-the-last layer of each stage; the first stages have one more where they cannot all be equal."""
    each, more = divmod(layers, stages)
    sizes = [each + (n < more) for n in range(stages)]
    return [(sum(sizes[:n]), sum(sizes[: n + 1])) for n in range(stages)]


def _pair(group: Any, ranks: Sequence[int]) -> Any:
    """A group of two of each pipeline's ranks. All processes make all such groups, in the same order."""
    everyone: List[Any] = [None] * dist.get_world_size()
    mine = [dist.get_process_group_ranks(group)[rank] for rank in ranks]
    dist.all_gather_object(everyone, mine)
    found = None
    for pair in sorted({tuple(each) for each in everyone}):
        made = dist.new_group(list(pair))
        if list(pair) == mine:
            found = made
    return found


def _shell(module: nn.Module) -> nn.Module:
    """A module of the same class with the same children, which can be replaced without touching the original's."""
    made = copy.copy(module)
    for name, value in list(vars(made).items()):
        if isinstance(value, dict):
            made.__dict__[name] = copy.copy(value)
    return made


def returns_tuple(model: nn.Module) -> bool:
    """What the layers of this release of transformers return, found by asking one."""
    parts = decoder(model)
    seen: List[Any] = []
    hook = parts.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    weight = getattr(parts.base, parts.embedding).weight
    with torch.no_grad():
        parts.top(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=weight.device), use_cache=False)
    hook.remove()
    return isinstance(seen[0], tuple)
