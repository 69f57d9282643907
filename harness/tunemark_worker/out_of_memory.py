"""Recognise an allocation that failed, and read from its message how much was requested and available."""

from __future__ import annotations

import re
from typing import Optional

# Out-of-memory messages of torch 1.13 to 2.13. An illegal memory access does not match.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|memory not enough|can't allocate memory|not enough memory|DefaultCPUAllocator.*alloc",
    re.I,
)
_REQUESTED = re.compile(r"(?:allocate|Memory requested *:) *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_AVAILABLE = re.compile(r"Memory available *: *([0-9.]+) ?(bytes|[KMGT]iB)", re.I)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on the host or on a device."""
    # torch.cuda.OutOfMemoryError is matched by name: torch before 1.13 does not have it.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def parse_requested_bytes(message: str) -> Optional[int]:
    """Bytes of the allocation that failed; None if the message does not say."""
    return _parse_bytes(_REQUESTED.search(message))


def parse_available_bytes(message: str) -> Optional[int]:
    """Bytes that were available; None if the message does not say."""
    return _parse_bytes(_AVAILABLE.search(message))


def _parse_bytes(match: Optional[re.Match[str]]) -> Optional[int]:
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else None
