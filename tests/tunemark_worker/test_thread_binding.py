"""Threads bound to the cores of their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_PROGRAM = """
import json, os, sys
import torch
from tunemark_worker.linux_proc import cpu_affinity
from tunemark_worker.thread_binding import bind_threads
cores = json.loads(sys.argv[1])
torch.set_num_threads(len(cores))
bound = bind_threads(cores, len(cores))
torch.ones(2**22).add_(1.0)
assert cpu_affinity() == cores
print(json.dumps([[core, sorted(os.sched_getaffinity(thread))] for thread, core in bound.items()]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a program choose cores")
def test_each_thread_has_a_core_of_its_own() -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(cores)], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said) == [[core, [core]] for core in cores]


def test_more_threads_than_cores_are_refused() -> None:
    from tunemark_worker.thread_binding import bind_threads

    with pytest.raises(ValueError, match="2 threads cannot each have one of 1 cores"):
        bind_threads([0, 0], 2)
