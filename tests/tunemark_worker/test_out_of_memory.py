"""Which errors are a lack of memory: by their words, and where these are ambiguous, by how much memory was in use."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tunemark_worker.out_of_memory import (
    ended_without_memory,
    find_full_limit,
    find_shortage,
    parse_requested_bytes,
    read_memory_uses,
)

_CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12 (Cannot allocate)"
_CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB"
_ONEDNN = ("could not create a primitive", "could not create a memory object", "could not execute a primitive")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(_CPU),
        MemoryError(),
        torch.cuda.OutOfMemoryError(_CUDA),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 1024 bytes from file </x>: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_errors_that_say_so_are_a_lack_of_memory(error: Exception) -> None:
    assert find_shortage(error) == ""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
        RuntimeError("could not create a process group"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert find_shortage(error) is None


def test_sizes_are_read_from_messages() -> None:
    assert parse_requested_bytes(_CPU) == 4096
    assert parse_requested_bytes(_CUDA) == int(2.5 * 2**30)


def _machine(root: Path, *, data_kib: int, limit: str, available_kib: int) -> str:
    own = root / "proc/self"
    own.mkdir(parents=True)
    (own / "status").write_text(f"Name:\tpython\nVmSize:\t 900000 kB\nVmData:\t{data_kib} kB\n")
    header = "Limit                     Soft Limit           Hard Limit           Units\n"
    rows = f"Max data size             {limit:<20} unlimited            bytes\n"
    (own / "limits").write_text(f"{header}{rows}Max address space         unlimited            unlimited   bytes\n")
    (root / "proc/meminfo").write_text(f"MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  {available_kib} kB\n")
    return f"{root}/"


def test_what_onednn_could_not_do_is_a_lack_of_memory_only_where_memory_was_nearly_full(tmp_path: Path) -> None:
    free = _machine(tmp_path / "free", data_kib=500_000, limit=str(1_000_000 * 1024), available_kib=800_000)
    full = _machine(tmp_path / "full", data_kib=950_000, limit=str(1_000_000 * 1024), available_kib=800_000)
    busy = _machine(tmp_path / "busy", data_kib=500_000, limit="unlimited", available_kib=50_000)
    assert find_full_limit(read_memory_uses(free)) is None
    said = find_full_limit(read_memory_uses(full))
    assert said == "0.91 of 0.95 GiB of private memory that this process may have were in use"
    assert "machine's memory" in (find_full_limit(read_memory_uses(busy)) or "")
    # Nothing is known here: it stays an error.
    assert read_memory_uses(f"{tmp_path}/nothing/") == []


# Reports the words of oneDNN's errors before and after most of the private memory that it may have is in use.
_LIMITED = """
import resource, sys
from tunemark_worker.out_of_memory import find_shortage
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, resource.RLIM_INFINITY))
said = sys.argv[1:]
print([find_shortage(RuntimeError(words)) is None for words in said])
kept = bytearray((2 << 30) - (150 << 20))
print([find_shortage(RuntimeError(words)) is None for words in said])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are read from Linux's /proc")
def test_a_process_at_its_limit_is_seen() -> None:
    # Untouched pages count for the limit and cost no memory: `bytearray` is made by calloc.
    done = subprocess.run([sys.executable, "-c", _LIMITED, *_ONEDNN], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert after == str([False] * 3)
    assert before == str([True] * 3) or _is_machine_full()


def _is_machine_full() -> bool:
    return find_full_limit(read_memory_uses()) is not None


def test_last_words_of_an_allocation_that_ended_the_process() -> None:
    assert ended_without_memory("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad")
    assert ended_without_memory("\nlibgomp: Out of memory allocating 4096 bytes\n")
    assert not ended_without_memory("terminate called after throwing an instance of 'std::runtime_error'")
