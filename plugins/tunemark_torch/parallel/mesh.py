"""One strategy for each axis of a mesh of processes, by torch's own mechanisms: DTensor, FSDP2 and its pipelines.

Applied from the inside out: tensor parallelism to the layers, then the pipeline's cut, then data parallelism around
each stage. Gradients are averaged over data ranks and nothing else, as DistributedDataParallel does.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import torch

from tunemark_torch.parallel import gather, pipeline, tensor
from tunemark_torch.parallel.group import join_alone
from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.decoder import layers_of
from tunemark_worker.norm import clip

# The axes that see distinct batches, from the outside to the inside.
DATA = ("ddp", "fsdp")


class Axis(NamedTuple):
    """One axis of the mesh."""

    strategy: str
    degree: int
    options: Mapping[str, str]

    def is_on(self, option: str, default: bool = False) -> bool:
        return {"true": True, "false": False}[self.options.get(option, str(default).lower())]


class Mesh:
    """Any of ddp, fsdp, tp and pp, or a product of them."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._axes = [Axis(**axis) for axis in assignment.axes]
        self._by_name = {axis.strategy: axis for axis in self._axes}
        self._selected: Dict[str, Any] = {}
        self._mesh: Any = None
        self._pipeline: Optional[pipeline.Pipeline] = None
        self._device = "cpu"

    def prepare(self) -> None:
        pass

    def place(self, place: Place) -> Place:
        """Where this rank stands among data ranks: axes are numbered in the order in which they are written."""
        data_rank, rest = 0, place.rank
        strides = _strides([axis.degree for axis in self._axes])
        for axis, stride in zip(self._axes, strides):
            at, rest = divmod(rest, stride)
            if axis.strategy in DATA:
                data_rank = data_rank * axis.degree + at
        return place._replace(data_rank=data_rank)

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        kind, self._device = place.device.partition(":")[0], place.device
        join_alone(kind)
        from torch.distributed.device_mesh import init_device_mesh  # torch 2.2 and newer

        degrees = tuple(axis.degree for axis in self._axes)
        names = tuple(axis.strategy for axis in self._axes)
        self._mesh = init_device_mesh(kind, degrees, mesh_dim_names=names)
        self._selected = {
            "strategy": self._assignment.strategy,
            "mesh": {axis.strategy: axis.degree for axis in self._axes},
        }
        returns_tuple = "pp" in self._by_name and pipeline.returns_tuple(model)
        if "tp" in self._by_name:
            axis = self._by_name["tp"]
            found = tensor.parallelize(
                model, self._mesh["tp"], sequence_parallel=axis.is_on("sequence_parallel", default=False)
            )
            self._selected["tensor_parallel"] = found
        trained: torch.nn.Module = model
        if "pp" in self._by_name:
            self._pipeline = pipeline.Pipeline(
                model,
                self._mesh["pp"],
                self._by_name["pp"].options,
                self._assignment,
                returns_tuple=returns_tuple,
                cut_by=self._mesh["tp"] if self._selected.get("tensor_parallel", {}).get("sequence_parallel") else None,
            )
            self._selected["pipeline_parallel"] = self._pipeline.facts()
            trained = self._pipeline.module
            for stage in self._pipeline.stages:
                self._data_parallel(stage)
            self._pipeline.schedule_stages(place)
        else:
            trained = self._data_parallel(model)
        return trained

    def selected(self) -> Optional[Mapping[str, Any]]:
        return self._selected or None

    @property
    def gradients(self) -> Any:
        """How a step's gradients are computed, where it is not forward and backward of one micro-batch after another;
        None else."""
        return self._gradients if self._pipeline is not None else None

    def clip(self, parameters: List[torch.nn.Parameter], largest: float) -> torch.Tensor:
        """Scale all gradients of the job so that their norm is at most `largest`; returns the norm before."""
        stages = self._mesh["pp"].get_group() if self._pipeline is not None else None
        twice = self._pipeline.counted_elsewhere() if self._pipeline is not None else []
        return clip(parameters, largest, stages, twice)

    def full_state(self, module: torch.nn.Module) -> Optional[Mapping[str, torch.Tensor]]:
        """All weights of the job, on the host of rank 0; None in the other ranks, which all take part."""
        if self._pipeline is None:
            return gather.full_state([module], None, self._device)
        stages = [stage.model for stage in self._pipeline.stages]
        return gather.full_state(stages, self._mesh["pp"].get_group(), self._device)

    def _gradients(self, logits: Any, loss: Any, batches: List[Batch], scale: torch.Tensor) -> torch.Tensor:
        assert self._pipeline is not None
        return self._pipeline.step(logits, loss, batches, scale)

    def _data_parallel(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, its parameters sharded or its gradients averaged over the mesh's data axes."""
        names = tuple(name for name in DATA if name in self._by_name)
        if not names:
            return module
        shards = "fsdp" in names
        if shards:
            from torch.distributed.fsdp import fully_shard
        else:
            from torch.distributed._composable.replicate_with_fsdp import replicate
        mesh = self._mesh[names if len(names) > 1 else names[0]]
        layers = layers_of(module)
        reshard = shards and self._by_name["fsdp"].is_on("reshard", default=True)
        for layer in [m for m in layers or () if any(True for _ in m.parameters())]:
            if shards:
                fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
            else:
                replicate(layer, mesh=mesh)
        if shards:
            fully_shard(module, mesh=mesh)
        else:
            replicate(module, mesh=mesh)
        return module


def _strides(degrees: List[int]) -> List[int]:
    """How many ranks lie between neighbours on each axis."""
    found: Tuple[int, ...] = ()
    stride = 1
    for degree in reversed(degrees):
        found = (stride, *found)
        stride *= degree
    return list(found)
