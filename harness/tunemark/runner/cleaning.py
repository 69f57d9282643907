"""What is left over, or can be made again: found with its size, and removed if that is asked for."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunemark.cache import cache_folder
from tunemark.results import Store
from tunemark.runner.device_lock import find_stale_locks
from tunemark.temporary import find_left_over

CleanKind = Literal["attempts", "half-written", "temporary", "locks", "code", "cache"]
# Files and folders that are written under another name first; a kill leaves them so.
_HALF_WRITTEN = re.compile(r"\.(?:writable-\w+|tmp-\w+|.+\.\d+-[0-9a-f]{8}|[0-9a-f]{16}-\w{8})")
# Seconds that writing a file may take.
_WRITING_S = 3600.0
# Of the cache: measured, so it cannot be made again for nothing.
_KEPT = ("calibration",)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanableItem:
    """Something that can be removed. why: what it was for. store: the store of an attempt, which notes its removal."""

    kind: CleanKind
    path: Path
    bytes: int
    why: str
    store: Path | None = None


def find_cleanable(stores: Sequence[Path], *, unused_days: float) -> list[CleanableItem]:
    """What can be removed: of these stores, of this user's cache, temporary folders and locks. unused_days: how long
    nothing of the cache may have been used."""
    found: list[CleanableItem] = []
    for store in stores:
        for folder in Store(store).replaced_attempts():
            why = "its series was measured again"
            found.append(CleanableItem(kind="attempts", path=folder, bytes=_size(folder), why=why, store=store))
        found += _find_half_written(store)
        found += _find_unused(store / ".code", "code", "a copy of the code for jobs on other hosts", unused_days)
    cache = cache_folder()
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        if folder.is_dir() and folder.name not in _KEPT:
            is_code = folder.name.startswith("code-")
            what = "a copy of the code" if is_code else f"made again when it is needed ({folder.name})"
            found += _find_half_written(folder)
            found += _find_unused(folder, "code" if is_code else "cache", what, unused_days)
    for folder in find_left_over():
        why = "left over by a command that was killed"
        found.append(CleanableItem(kind="temporary", path=folder, bytes=_size(folder), why=why))
    for path in find_stale_locks():
        why = "nobody holds this lock of a device"
        found.append(CleanableItem(kind="locks", path=path, bytes=_size(path), why=why))
    return found


def remove(item: CleanableItem) -> None:
    """Remove it. OSError if it cannot be."""
    if item.store is not None:
        Store(item.store).remove_attempt(item.path)
    elif item.path.is_dir() and not item.path.is_symlink():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


def _find_half_written(root: Path) -> Iterator[CleanableItem]:
    for pattern in (".*", "*/.*", "*/*/.*"):
        for path in sorted(root.glob(pattern)):
            if _HALF_WRITTEN.fullmatch(path.name) and _idle_s(path) > _WRITING_S:
                why = "half written by a command that was killed"
                yield CleanableItem(kind="half-written", path=path, bytes=_size(path), why=why)


def _find_unused(folder: Path, kind: CleanKind, what: str, unused_days: float) -> Iterator[CleanableItem]:
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        idle_s = _idle_s(path)
        if not path.name.startswith(".") and idle_s >= unused_days * 86_400:
            why = f"{what}, not used for {idle_s / 86_400:.0f} days"
            yield CleanableItem(kind=kind, path=path, bytes=_size(path), why=why)


def _files(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, names in os.walk(path):
            yield from (Path(folder, name) for name in (*folders, *names))


def _idle_s(path: Path) -> float:
    """Seconds since anything of it was read or written, as far as the file system says."""
    newest_s = 0.0
    for each in _files(path):
        with contextlib.suppress(OSError):
            state = each.lstat()
            newest_s = max(newest_s, state.st_mtime, state.st_atime if each.is_file() else 0.0)
    return time.time() - newest_s


def _size(path: Path) -> int:
    total = 0
    for each in _files(path):
        with contextlib.suppress(OSError):
            total += each.lstat().st_size if not each.is_dir() or each.is_symlink() else 0
    return total
