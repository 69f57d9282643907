"""Recognise an allocation that failed, and read from its message how much was requested and available."""

from __future__ import annotations

import errno
import re
from typing import List, Mapping, NamedTuple, Optional

from tunemark_worker.linux_proc import read_text

# Out-of-memory messages of torch 1.13 to 2.13, of C++ and of C's library. An illegal memory access does not match.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|memory not enough|can(?:'|no)t allocate memory|not enough memory|std::bad_alloc|"
    r"DefaultCPUAllocator.*alloc|unable to allocate|failed to allocate memory",
    re.I,
)
# oneDNN's, which torch raises with these words whatever the library's status was: out_of_memory, unimplemented or
# another one (oneDNN, src/common/c_types_map and include/oneapi/dnnl/dnnl_common.hpp).
_MAYBE = re.compile(
    r"could not (?:create|execute|initialize|set data handle of|get) an? (?:primitive|memory|reorder|scratchpad)|"
    r"could not create a \w*primitive",
    re.I,
)
_REQUESTED = re.compile(r"(?:allocate|Memory requested *:) *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_AVAILABLE = re.compile(r"Memory available *: *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
# Last words of a process that an allocation ended without a Python exception: of libstdc++, libc++ and libgomp.
_LAST_WORDS = re.compile(
    r"terminat\w+ (?:called after throwing an instance of '|due to uncaught exception of type )std::bad_alloc|"
    r"libgomp: Out of memory allocating"
)
# The share of a limit that has to be taken for an ambiguous error to be one of memory.
_NEAR = 0.9


class MemoryUse(NamedTuple):
    """Bytes in use of a limit, and what it is a limit of."""

    used_bytes: int
    limit_bytes: int
    what: str

    def words(self) -> str:
        used, limit = (each / 2**30 for each in (self.used_bytes, self.limit_bytes))
        return "{:.2f} of {:.2f} GiB of {} were in use".format(used, limit, self.what)


def find_shortage(error: BaseException) -> Optional[str]:
    """What says that the error is an allocation that failed, on the host or on a device: "" where the error itself
    does, a sentence where its words could mean something else too; None where nothing says so."""
    # torch.cuda.OutOfMemoryError is matched by name: torch before 1.13 does not have it.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return ""
    if isinstance(error, OSError):
        return "" if error.errno == errno.ENOMEM else None
    if not isinstance(error, RuntimeError):
        return None
    if _OUT_OF_MEMORY.search(str(error)):
        return ""
    return find_full_limit(read_memory_uses()) if _MAYBE.search(str(error)) else None


def find_full_limit(uses: List[MemoryUse]) -> Optional[str]:
    """A sentence about the limit that is nearly reached; None where there is none."""
    return next((use.words() for use in uses if use.used_bytes >= _NEAR * use.limit_bytes), None)


def read_memory_uses(root: str = "/") -> List[MemoryUse]:
    """How much of each limit of memory is in use: of this process, and of the machine. Linux alone."""
    status, limits = read_text(root + "proc/self/status"), read_text(root + "proc/self/limits")
    own, machine = _read_sizes(status), _read_sizes(read_text(root + "proc/meminfo"))
    found = []
    for name, field, what in (
        ("Max data size", "VmData", "private memory that this process may have"),
        ("Max address space", "VmSize", "addresses that this process may have"),
    ):
        limit = re.search(r"^{} +(\d+)".format(name), limits, re.M)
        if limit and field in own:
            found.append(MemoryUse(own[field], int(limit.group(1)), what))
    if "MemTotal" in machine and "MemAvailable" in machine:
        total = machine["MemTotal"]
        found.append(MemoryUse(total - machine["MemAvailable"], total, "this machine's memory"))
    return found


def _read_sizes(text: str) -> Mapping[str, int]:
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def ended_without_memory(stderr: str) -> bool:
    """Whether the last words of a process say that an allocation ended it."""
    return _LAST_WORDS.search(stderr) is not None


def parse_requested_bytes(message: str) -> Optional[int]:
    """Bytes of the allocation that failed; None if the message does not say."""
    return _parse_bytes(_REQUESTED.search(message))


def parse_available_bytes(message: str) -> Optional[int]:
    """Bytes that were available; None if the message does not say."""
    return _parse_bytes(_AVAILABLE.search(message))


def _parse_bytes(match: Optional[re.Match[str]]) -> Optional[int]:
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else None
