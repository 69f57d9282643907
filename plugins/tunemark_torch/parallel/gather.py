"""The whole weights of a model that is divided over processes, on the host of rank 0, after training."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import torch
import torch.distributed as dist
from torch import nn

from tunemark_torch.parallel import tensor

Weights = Dict[str, torch.Tensor]


def whole(module: nn.Module, *, is_kept: bool) -> Weights:
    """Every weight and buffer of the module in full. All ranks that share its shards take part, those that do not keep
    anything too."""
    found: Weights = {}
    for name, value in module.state_dict().items():
        # A collective operation, in the same order in every rank.
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        if is_kept:
            owner, _, own = name.rpartition(".")
            found[name] = tensor.reordered(module.get_submodule(owner), own, full.detach()).cpu()
    return found


def of_stages(mine: Weights, group: Any, device: torch.device) -> Optional[Weights]:
    """The weights of all ranks of a pipeline, on its first; None on the others. One tensor travels at a time."""
    ranks = dist.get_process_group_ranks(group)
    first, rank = ranks[0], dist.get_rank()
    found: Weights = dict(mine)
    for source in ranks[1:]:
        told: List[Any] = [[(name, list(t.shape), t.dtype) for name, t in mine.items()] if rank == source else None]
        dist.broadcast_object_list(told, src=source, group=group, device=device)
        for name, shape, dtype in told[0]:
            if rank == source:
                dist.send(mine[name].to(device).contiguous(), dst=first, group=group)
            elif rank == first:
                arriving = torch.empty(shape, dtype=dtype, device=device)
                dist.recv(arriving, src=source, group=group)
                found[name] = arriving.cpu()
    return found if rank == first else None


def full_state(stages: Sequence[nn.Module], group: Optional[Any], device: str) -> Optional[Weights]:
    """All weights, in rank 0. stages: this rank's part of the model. group: of its pipeline, None where it has none."""
    ranks = [0] if group is None else dist.get_process_group_ranks(group)
    # Other pipelines hold the same weights, or shards of them that take part in gathering.
    is_kept = ranks[0] == 0 and dist.get_rank() in ranks
    mine: Weights = {}
    for stage in stages:
        mine.update(whole(stage, is_kept=is_kept))
    if not is_kept:
        return None
    return mine if group is None else of_stages(mine, group, torch.device(device))
