"""Files of datasets: which a folder has, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadData, BadExperiment
from tunemark_datasets.row_errors import make_bad_data
from tunemark_worker.file_hash import hash_file

# What a file begins with that git left in place of a large one. Source: git-lfs, docs/spec.md.
LFS_POINTER = b"version https://git-lfs"


def check_no_pointer(name: str, path: Path, head: bytes) -> None:
    """`BadData` for a file that only points at its content. head: as many bytes as `LFS_POINTER` has."""
    if head == LFS_POINTER:
        why = "it holds the address of a file that git has not downloaded (Git LFS)"
        raise make_bad_data(
            name, path, "it is not the file itself", why, "run git lfs pull there, or download the file"
        )


def list_visible_files(folder: Path) -> list[Path]:
    """All files below a folder, in order, without those whose name, or whose folder's name, begins with a point."""
    below = sorted(p for p in folder.rglob("*") if p.is_file())
    return [p for p in below if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def hash_path(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hash_file(file)


def combine_hashes(hashes: Sequence[str]) -> str:
    """One hash of several files; that of a single file is its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def make_missing_file_error(name: str, path: Path) -> BadData:
    return BadData(
        what=f"{name}: there is no file {str(path)!r}",
        why="it was given with path=",
        next="correct the path; it is relative to the current folder",
    )


def read_template(dataset: str, name: str, *, next: str, why: str = "", kind: str = "template") -> str:
    """The text of a template's file. kind, why, next: words of the `BadExperiment` where it cannot be read."""
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadExperiment(what=f"{dataset}: there is no {kind} {name!r}", why=f"{why}{error}", next=next) from error
