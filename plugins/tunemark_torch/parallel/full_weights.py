"""The full weights of a model that is split over processes, gathered on the host of rank 0 after training."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import torch
import torch.distributed as dist
from torch import nn

from tunemark_torch.parallel import tensor_parallel

Weights = Dict[str, torch.Tensor]


def gather_module(module: nn.Module, *, is_kept: bool) -> Weights:
    """Every weight and buffer of the module in full. Every rank with shards must call this, even with is_kept=False."""
    found: Weights = {}
    for name, value in module.state_dict().items():
        # full_tensor() is a collective: every rank calls it in the same order.
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        if is_kept:
            owner, _, local_name = name.rpartition(".")
            found[name] = tensor_parallel.restore_column_order(
                module.get_submodule(owner), local_name, full.detach()
            ).cpu()
    return found


def gather_stages(mine: Weights, group: Any, device: torch.device) -> Optional[Weights]:
    """The weights of all ranks of a pipeline, on its first rank; None on the others. Tensors are sent one at a time."""
    ranks = dist.get_process_group_ranks(group)
    first, rank = ranks[0], dist.get_rank()
    found: Weights = dict(mine)
    for source in ranks[1:]:
        shapes: List[Any] = [[(name, list(t.shape), t.dtype) for name, t in mine.items()] if rank == source else None]
        dist.broadcast_object_list(shapes, src=source, group=group, device=device)
        for name, shape, dtype in shapes[0]:
            if rank == source:
                dist.send(mine[name].to(device).contiguous(), dst=first, group=group)
            elif rank == first:
                received = torch.empty(shape, dtype=dtype, device=device)
                dist.recv(received, src=source, group=group)
                found[name] = received.cpu()
    return found if rank == first else None


def gather_full_state(stages: Sequence[nn.Module], group: Optional[Any], device: str) -> Optional[Weights]:
    """All weights, on rank 0. stages: this rank's part of the model. group: its pipeline's, None without a pipeline."""
    ranks = [0] if group is None else dist.get_process_group_ranks(group)
    # Other pipelines hold the same weights, or shards of them: they only take part in the collectives.
    is_kept = ranks[0] == 0 and dist.get_rank() in ranks
    mine: Weights = {}
    for stage in stages:
        mine.update(gather_module(stage, is_kept=is_kept))
    if not is_kept:
        return None
    return mine if group is None else gather_stages(mine, group, torch.device(device))
