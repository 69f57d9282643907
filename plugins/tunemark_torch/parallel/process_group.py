"""A process group of one process."""

from __future__ import annotations

import torch.distributed as dist


def join_single_process_group(kind: str) -> None:
    """Join a process group of one unless there is a group, so that a strategy's overhead can be measured at size 1."""
    if not dist.is_initialized():
        backend = "nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
