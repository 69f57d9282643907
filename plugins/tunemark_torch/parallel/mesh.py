"""One strategy per axis of a mesh of processes, with torch's DTensor, FSDP2 and pipeline schedules.

Applied from the inside out: tensor parallelism to the layers, then the split into pipeline stages, then data
parallelism around each stage. Gradients are averaged over data ranks only, as in DistributedDataParallel.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import torch

from tunemark_torch.parallel import full_weights, pipeline_parallel, stage_check, tensor_parallel
from tunemark_torch.parallel.process_group import join_single_process_group
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.decoder import find_layers
from tunemark_worker.gradient_norm import clip_gradients

# The axes whose ranks see distinct batches, outermost first.
DATA_AXES = ("ddp", "fsdp")


class MeshAxis(NamedTuple):
    """One axis of the mesh."""

    strategy: str
    degree: int
    options: Mapping[str, str]

    def is_on(self, option: str, default: bool = False) -> bool:
        return {"true": True, "false": False}[self.options.get(option, str(default).lower())]


class MeshStrategy:
    """Any of ddp, fsdp, tp and pp, or a product of them."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._axes = [MeshAxis(**axis) for axis in assignment.axes]
        self._by_name = {axis.strategy: axis for axis in self._axes}
        self._selected: Dict[str, Any] = {}
        self._mesh: Any = None
        self._pipeline: Optional[pipeline_parallel.Pipeline] = None
        self._device = "cpu"

    def prepare(self) -> None:
        pass

    def place(self, place: Place) -> Place:
        """The place with this rank's data rank: the mesh axes are in the order written, the last varies fastest."""
        data_rank, rest = 0, place.rank
        strides = _strides([axis.degree for axis in self._axes])
        for axis, stride in zip(self._axes, strides):
            index, rest = divmod(rest, stride)
            if axis.strategy in DATA_AXES:
                data_rank = data_rank * axis.degree + index
        return place._replace(data_rank=data_rank)

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        kind, self._device = place.device.partition(":")[0], place.device
        join_single_process_group(kind)
        from torch.distributed.device_mesh import init_device_mesh  # torch 2.2 and newer

        degrees = tuple(axis.degree for axis in self._axes)
        names = tuple(axis.strategy for axis in self._axes)
        self._mesh = init_device_mesh(kind, degrees, mesh_dim_names=names)
        self._selected = {
            "strategy": self._assignment.strategy,
            "mesh": {axis.strategy: axis.degree for axis in self._axes},
        }
        is_sequence_parallel = "tp" in self._by_name and self._by_name["tp"].is_on("sequence_parallel")
        tuple_length = self._try_stages(model) if "pp" in self._by_name else 0
        if "tp" in self._by_name:
            found = tensor_parallel.parallelize(model, self._mesh["tp"], sequence_parallel=is_sequence_parallel)
            self._selected["tensor_parallel"] = found
        trained: torch.nn.Module = model
        if "pp" in self._by_name:
            self._pipeline = pipeline_parallel.Pipeline(
                model,
                self._mesh["pp"],
                self._by_name["pp"].options,
                self._assignment,
                tuple_length=tuple_length,
                seq_mesh=self._mesh["tp"] if is_sequence_parallel else None,
            )
            self._selected["pipeline_parallel"] = self._pipeline.facts()
            trained = self._pipeline.module
            for stage in self._pipeline.stages:
                self._apply_data_parallel(stage)
            self._pipeline.schedule_stages(place)
            # A capability of this object only: without a pipeline axis, micro-batches are run one after another.
            self.compute_gradients = self._pipeline.step
        else:
            trained = self._apply_data_parallel(model)
        return trained

    def selected(self) -> Optional[Mapping[str, Any]]:
        return self._selected or None

    def clip(self, parameters: List[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
        """Scale all gradients of the job so that their norm is at most `max_norm`; returns the norm before scaling."""
        stages = self._mesh["pp"].get_group() if self._pipeline is not None else None
        duplicates = self._pipeline.duplicate_parameters() if self._pipeline is not None else []
        return clip_gradients(parameters, max_norm, stages, duplicates)

    def full_state(self, module: torch.nn.Module) -> Optional[Mapping[str, torch.Tensor]]:
        """All weights of the job, on the host of rank 0; None on the other ranks, all of which must call this."""
        if self._pipeline is None:
            return full_weights.gather_full_state([module], None, self._device)
        stages = [stage.model for stage in self._pipeline.stages]
        return full_weights.gather_full_state(stages, self._mesh["pp"].get_group(), self._device)

    def _try_stages(self, model: torch.nn.Module) -> int:
        """The length of the tuple that a layer returns, 0 for a tensor. ValueError where the stages do not compute what
        the whole model does."""
        axis = self._by_name["pp"]
        stages = axis.degree * pipeline_parallel.stages_per_rank(axis.options)
        found = stage_check.check_stages(model, stages, self._assignment.precision)
        if found.problem is not None:
            raise ValueError("{}: use ddp, fsdp or tp".format(found.problem))
        return found.tuple_length

    def _apply_data_parallel(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module with its parameters sharded, or its gradients averaged, over the mesh's data axes."""
        names = tuple(name for name in DATA_AXES if name in self._by_name)
        if not names:
            return module
        shards = "fsdp" in names
        if shards:
            try:
                from torch.distributed.fsdp import fully_shard
            except ImportError:  # torch 2.5 and older
                from torch.distributed._composable.fsdp import fully_shard  # type: ignore[attr-defined]
        else:
            from torch.distributed._composable.replicate_with_fsdp import replicate
        mesh = self._mesh[names if len(names) > 1 else names[0]]
        layers = find_layers(module)
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
    """The distance in ranks between neighbours on each axis."""
    found: Tuple[int, ...] = ()
    stride = 1
    for degree in reversed(degrees):
        found = (stride, *found)
        stride *= degree
    return list(found)
