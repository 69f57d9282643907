"""Inside the worker: the CPU, CUDA and ROCm devices, and training in one process or with DistributedDataParallel."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Dict, List, Mapping, Optional

import torch
import torch.distributed as dist

from tunemark_torch.parallel.process_group import join_single_process_group
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.no_strategy import NoStrategy as NoStrategy
from tunemark_worker.process_group import join_process_group
from tunemark_worker.thread_binding import bind_threads


class CpuRuntime:
    """CPU cores of this host. Work is synchronous, so synchronizing is free and every step is a window."""

    is_synchronous = True

    def __init__(self) -> None:
        self._bound: Dict[int, int] = {}

    def open(self, assignment: Assignment) -> Place:
        place = _make_place("cpu", assignment)
        cores = assignment.device_options.get("cores")
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, _cores_of_this_process(assignment) if cores == "own" else cores[place.rank])
        torch.set_num_threads(assignment.threads)
        if assignment.thread_binding == "thread":
            self._bound = bind_threads(sorted(os.sched_getaffinity(0)), assignment.threads)
        _limit_private_memory(assignment.device_options.get("memory_limit_bytes"))
        if place.ranks > 1 and not dist.is_initialized():
            join_process_group("gloo")
        return place

    def synchronize(self) -> None:
        pass

    def peak_memory_bytes(self) -> Optional[int]:
        """Peak resident memory of the process, which includes the interpreter and its libraries."""
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def facts(self) -> Mapping[str, Any]:
        mkldnn: Any = torch.backends.mkldnn
        found = {"torch_threads": torch.get_num_threads(), "mkldnn": mkldnn.is_available()}
        return {**found, "cores_of_threads": sorted(self._bound.values())} if self._bound else found


class CudaRuntime:
    """NVIDIA and AMD GPUs, both of which torch calls cuda. Not yet run on hardware by its authors."""

    is_synchronous = False

    def __init__(self) -> None:
        self._device = torch.device("cuda", 0)

    def open(self, assignment: Assignment) -> Place:
        index = int(os.environ.get("LOCAL_RANK", "0"))
        self._device = torch.device("cuda", index)
        torch.cuda.set_device(self._device)
        limit_bytes = assignment.device_options.get("memory_limit_bytes")
        if limit_bytes:
            whole = torch.cuda.get_device_properties(self._device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / whole), self._device)
        torch.set_num_threads(assignment.threads)
        place = _make_place(str(self._device), assignment)
        if place.ranks > 1 and not dist.is_initialized():
            join_process_group("nccl")
        return place

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def peak_memory_bytes(self) -> Optional[int]:
        """Peak bytes that torch's allocator had allocated on this rank's device."""
        return int(torch.cuda.max_memory_allocated(self._device))

    def facts(self) -> Mapping[str, Any]:
        properties = torch.cuda.get_device_properties(self._device)
        return {
            "chip": properties.name,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
        }


class RocmRuntime(CudaRuntime):
    """AMD GPUs only, with a torch built for ROCm, which calls them cuda too. Not yet run on hardware by its authors."""

    def __init__(self) -> None:
        if torch.version.hip is None:
            raise RuntimeError("this torch is built for {}, not for ROCm".format(torch.version.cuda or "the CPU"))
        super().__init__()


class Ddp(NoStrategy):
    """torch's DistributedDataParallel: a full model per rank, gradients averaged while backward computes them."""

    def __init__(self, assignment: Assignment) -> None:
        self._selected: Dict[str, Any] = {"strategy": "ddp"}
        self._module: Any = None

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        join_single_process_group(place.device.partition(":")[0])
        self._selected["data_parallel"] = dist.get_world_size()
        devices = [torch.device(place.device)] if place.device.startswith("cuda") else None
        ddp = torch.nn.parallel.DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        self._module = ddp
        return ddp

    def mark_waits(self, waits: Any) -> None:
        """Report when backward has nothing left to compute: DDP's reducer waits in C++ once its last bucket is sent."""
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        def reduce(group: Any, bucket: Any) -> Any:
            # The reducer's default.
            reduced = allreduce_hook(group, bucket)
            if bucket.is_last():
                waits.start_waiting()
            return reduced

        # torch compares annotations with its types, and with `from __future__ import annotations` they are strings.
        reduce.__annotations__.clear()
        self._module.register_comm_hook(None, reduce)

    def selected(self) -> Optional[Mapping[str, Any]]:
        return self._selected


def _limit_private_memory(limit_bytes: Optional[int]) -> None:
    """Let allocations of this process beyond so many bytes fail. The kernel counts private pages that may be written,
    touched or not (RLIMIT_DATA of getrlimit(2), since Linux 4.7); a lower hard limit stays."""
    if not limit_bytes:
        return
    if not sys.platform.startswith("linux"):
        raise RuntimeError("this system has no limit of a process's private memory")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _cores_of_this_process(assignment: Assignment) -> List[int]:
    """This process's share of the cores that its host gave the job; the host's other processes take the rest."""
    cores, threads = sorted(os.sched_getaffinity(0)), assignment.threads
    rank, ranks = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if len(cores) < ranks * threads and not assignment.device_options.get("oversubscribed"):
        raise ValueError(
            "this host gives the job {} cores, but {} processes of {} threads need {}".format(
                len(cores), ranks, threads, ranks * threads
            )
        )
    return sorted({cores[(rank * threads + i) % len(cores)] for i in range(threads)})


def _make_place(device: str, assignment: Assignment) -> Place:
    """Ranks as the launcher numbers them; the ranks of one data rank are consecutive."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks != assignment.processes:
        raise ValueError("{} processes were planned, but {} were started".format(assignment.processes, ranks))
    data_rank = rank // (ranks // assignment.data_ranks)
    return Place(device=device, rank=rank, ranks=ranks, data_rank=data_rank, data_ranks=assignment.data_ranks)
