"""CPU and CUDA devices, and training without or with data parallelism, inside the worker."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Dict, List, Mapping, Optional

import torch
import torch.distributed as dist

from tunemark_torch.parallel.group import join_alone
from tunemark_worker.contract import Assignment, Place


class Cpu:
    """Cores of this host. Work is synchronous, so waiting for it is free and every step is a window."""

    waits_free = True

    def open(self, assignment: Assignment) -> Place:
        place = _place("cpu", assignment)
        cores = assignment.device_options.get("cores")
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, _own_cores(assignment) if cores == "own" else cores[place.rank])
        torch.set_num_threads(assignment.threads)
        if place.ranks > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
        return place

    def synchronize(self) -> None:
        pass

    def peak_memory_bytes(self) -> Optional[int]:
        """The most resident memory of the process: weights, and also the interpreter and its libraries."""
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def facts(self) -> Mapping[str, Any]:
        return {"torch_threads": torch.get_num_threads(), "mkldnn": torch._C._has_mkldnn}


class Cuda:
    """NVIDIA and AMD GPUs, which torch both calls cuda. Not yet run on hardware by its authors."""

    waits_free = False

    def __init__(self) -> None:
        self._device = torch.device("cuda", 0)

    def open(self, assignment: Assignment) -> Place:
        index = int(os.environ.get("LOCAL_RANK", "0"))
        self._device = torch.device("cuda", index)
        torch.cuda.set_device(self._device)
        torch.set_num_threads(assignment.threads)
        place = _place(str(self._device), assignment)
        if place.ranks > 1 and not dist.is_initialized():
            dist.init_process_group("nccl")
        return place

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def peak_memory_bytes(self) -> Optional[int]:
        """The most that torch's allocator had handed out on this rank's device."""
        return int(torch.cuda.max_memory_allocated(self._device))

    def facts(self) -> Mapping[str, Any]:
        properties = torch.cuda.get_device_properties(self._device)
        return {
            "chip": properties.name,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
        }


class Rocm:
    """AMD's GPUs alone, by a torch that is built for them. Not yet run on hardware by its authors."""

    waits_free = False

    def __init__(self) -> None:
        if torch.version.hip is None:
            raise RuntimeError("this torch is built for {}, not for ROCm".format(torch.version.cuda or "the CPU"))
        # Torch calls them cuda too, and everything is the same from here on.
        self._cuda = Cuda()

    def open(self, assignment: Assignment) -> Place:
        return self._cuda.open(assignment)

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def peak_memory_bytes(self) -> Optional[int]:
        return self._cuda.peak_memory_bytes()

    def facts(self) -> Mapping[str, Any]:
        return self._cuda.facts()


class NoStrategy:
    """One process."""

    def __init__(self, assignment: Assignment) -> None:
        pass

    def prepare(self) -> None:
        pass

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        return model

    def selected(self) -> Optional[Mapping[str, Any]]:
        return {"strategy": "none"}


class Ddp:
    """torch's DistributedDataParallel: a copy of the model in each rank, gradients averaged while they are computed."""

    def __init__(self, assignment: Assignment) -> None:
        self._selected: Dict[str, Any] = {"strategy": "ddp"}
        self._module: Any = None

    def prepare(self) -> None:
        pass

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        join_alone(place.device.partition(":")[0])
        self._selected["data_parallel"] = dist.get_world_size()
        devices = [torch.device(place.device)] if place.device.startswith("cuda") else None
        ddp = torch.nn.parallel.DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        self._module = ddp
        return ddp

    def watch(self, waits: Any) -> None:
        """DDP's reducer waits in C++, after its last bucket is on its way: from there on backward computes nothing."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        def reduce(group: Any, bucket: Any) -> Any:
            # What the reducer does by itself.
            reduced = allreduce_hook(group, bucket)
            if bucket.is_last():
                waits.until_taken()
            return reduced

        # Torch compares annotations with its types, and these are strings.
        reduce.__annotations__.clear()
        self._module.register_comm_hook(None, reduce)

    def selected(self) -> Optional[Mapping[str, Any]]:
        return self._selected


def _own_cores(assignment: Assignment) -> List[int]:
    """This process's share of the cores that its host gave the job: its neighbours there take the others."""
    given, each = sorted(os.sched_getaffinity(0)), assignment.threads
    local, ranks = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if len(given) < ranks * each and not assignment.device_options.get("oversubscribed"):
        raise ValueError(
            "this host gives the job {} cores, {} processes of {} threads need {}".format(
                len(given), ranks, each, ranks * each
            )
        )
    return sorted({given[(local * each + i) % len(given)] for i in range(each)})


def _place(device: str, assignment: Assignment) -> Place:
    """Ranks as torch.distributed.run numbers them; every neighbour of a data rank lies next to it."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks != assignment.processes:
        raise ValueError("{} processes were planned, {} were started".format(assignment.processes, ranks))
    data_rank = rank // (ranks // assignment.data_ranks)
    return Place(device=device, rank=rank, ranks=ranks, data_rank=data_rank, data_ranks=assignment.data_ranks)
