"""The gradient norm over all ranks, whatever the sharding, and clipping by it."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import torch.distributed as dist


def clip_gradients(
    parameters: Sequence[torch.nn.Parameter],
    max_norm: float,
    stages: Optional[Any] = None,
    counted_elsewhere: Sequence[torch.nn.Parameter] = (),
) -> torch.Tensor:
    """Scale the gradients so that their 2-norm over all parameters of the job is at most `max_norm`, by the rule of
    `torch.nn.utils.clip_grad_norm_`; returns the norm before scaling.

    Squares of a sharded gradient are summed over the ranks that it is sharded over; a replicated one counts once.
    stages: the process group of ranks with other parameters (pipeline stages). counted_elsewhere: parameters that
    another rank of that group also has and counts. Unsharded gradients on an accelerator use torch's fused kernels.
    """
    if stages is None and not counted_elsewhere and all(_is_unsharded_on_accelerator(p) for p in parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for parameter in parameters:
        sum_partial_gradient(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    skipped = {id(p.grad) for p in counted_elsewhere}
    groups: Dict[Tuple[Any, Tuple[int, ...]], List[torch.Tensor]] = {}
    for gradient in gradients:
        if id(gradient) in skipped:
            continue
        mesh = getattr(gradient, "device_mesh", None)
        dims = tuple(i for i, at in enumerate(getattr(gradient, "placements", ())) if not at.is_replicate())
        groups.setdefault((mesh, dims), []).append(local_part(gradient))
    device = local_part(parameters[0]).device if parameters else None
    total = torch.zeros((), dtype=torch.float64, device=device)
    for (mesh, dims), found in groups.items():
        squares = torch.stack([sum_squares(each) for each in found]).sum()
        for dim in dims:
            dist.all_reduce(squares, group=mesh.get_group(dim))
        total += squares
    if stages is not None:
        dist.all_reduce(total, group=stages)
    norm = total.sqrt()
    if max_norm < float("inf"):
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        for gradient in gradients:
            local_part(gradient).mul_(factor)
    return norm


def _is_unsharded_on_accelerator(parameter: torch.nn.Parameter) -> bool:
    return parameter.device.type != "cpu" and not hasattr(parameter, "placements")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor that may be a DTensor, detached."""
    held: Any = tensor.detach()
    found: torch.Tensor = held.to_local() if hasattr(held, "to_local") else held
    return found


def sum_partial_gradient(parameter: torch.nn.Parameter) -> None:
    """Redistribute a gradient to the placements of its parameter. Partial gradients are summed, such as those of a
    norm's weight under sequence parallelism."""
    gradient, held = parameter.grad, parameter  # type: Any, Any
    if getattr(gradient, "placements", None) != getattr(held, "placements", None) and gradient is not None:
        parameter.grad = gradient.redistribute(held.device_mesh, held.placements)


def sum_squares(gradient: torch.Tensor) -> torch.Tensor:
    """The squared norm, computed row by row: on a CPU torch sums a whole tensor's squares in float32, and for eight
    million of them the norm was off by 2e-4 (torch 2.13). The second sum is short, so float64 costs nothing."""
    rows = gradient if gradient.dim() > 1 else gradient[None]
    norms = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32)
    norm: torch.Tensor = torch.linalg.vector_norm(norms, dtype=torch.float64)
    return norm.square()
