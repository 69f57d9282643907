"""Threads of a process bound to its cores, one to each, as `OMP_PROC_BIND` does for a process that has all cores.

By the variables of OpenMP that is not possible here: they are read when torch is imported, before a process knows its
cores. Linux alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from tunemark_worker.linux_proc import note_divided_cores

# Elements that make torch divide an operation among all its threads: its grain is 32,768.
_PARALLEL_ELEMENTS = 2**22


def bind_threads(cores: Sequence[int], threads: int) -> dict[int, int]:
    """Bind the calling thread and those that torch computes with to one core each, in order.

    cores: of this process. threads: with which it computes. Returns the core of each thread's id. ValueError where
    there are fewer cores than threads, or torch started other threads than it was to have.
    """
    if len(set(cores)) < threads:
        raise ValueError(f"{threads} threads cannot each have one of {len(set(cores))} cores")
    own = os.getpid()
    before = _thread_ids()
    torch.ones(_PARALLEL_ELEMENTS).add_(1.0)
    team = sorted(_thread_ids() - before)
    if len(team) != threads - 1:
        raise ValueError(f"torch computes with {len(team)} threads besides the first, not {threads - 1}")
    bound = dict(zip([own, *team], sorted(set(cores))))
    note_divided_cores(bound.values())
    for thread, core in bound.items():
        os.sched_setaffinity(thread, {core})
    return bound


def _thread_ids() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}
