"""Read files that a user names: of any kind, so that a shell's `<(...)` works, and of a size that a person writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Seconds that a pipe's writer may take to begin.
_WRITER_S = 5.0
_CHUNK_BYTES = 1 << 20


def read_given_file(path: str | Path, most_bytes: int = 16 << 20) -> bytes:
    """The content of a file, pipe or device; OSError if it is larger than `most_bytes`, or a pipe that nobody writes
    to."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb", buffering=0) as file:
        parts: list[bytes] = []
        size, until_s = 0, time.monotonic() + _WRITER_S
        is_file = os.path.isfile(path)
        while True:
            part = file.read(_CHUNK_BYTES)  # None where a writer has not written yet
            if part:
                parts.append(part)
                size += len(part)
                if size > most_bytes:
                    raise OSError(f"it is larger than {most_bytes >> 20} MB")
            elif is_file or (part == b"" and parts):
                return b"".join(parts)
            elif time.monotonic() > until_s and not parts:
                raise OSError("nobody writes to it")
            else:
                time.sleep(0.02)
