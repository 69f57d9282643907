"""Files of datasets: which a folder has, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadData

_CHUNK_BYTES = 1 << 20


def list_visible_files(folder: Path) -> list[Path]:
    """All files below a folder, in order, without those whose name, or whose folder's name, begins with a point."""
    below = sorted(p for p in folder.rglob("*") if p.is_file())
    return [p for p in below if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def combine_hashes(hashes: Sequence[str]) -> str:
    """One hash of several files; that of a single file is its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def make_missing_file_error(name: str, path: Path) -> BadData:
    return BadData(
        what=f"{name}: there is no file {str(path)!r}",
        why="it was given with path=",
        next="correct the path; it is relative to the current folder",
    )
