"""The hash of a file, read in parts: what parent, worker and plugins call a file's content."""

from __future__ import annotations

import hashlib
from typing import IO


def hash_file(file: IO[bytes]) -> str:
    """The SHA-256 of the rest of an open file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        digest.update(part)
    return digest.hexdigest()
