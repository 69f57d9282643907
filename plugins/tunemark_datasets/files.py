"""Files of datasets: which a folder has, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadData, BadExperiment
from tunemark_worker.file_hash import hash_file


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
