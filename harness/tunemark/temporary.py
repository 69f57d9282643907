"""Temporary folders that carry our mark, so that the next command removes those of one that was killed.

A folder is held by a lock of the kernel for as long as its process lives, however it ends. One that nobody holds is
left over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# The dot marks folders that are locked while they are in use; earlier versions had none and locked nothing.
_MARKED = re.compile(r"tunemark-[a-z]+\.\w+")
_EARLIER = re.compile(r"tunemark-(?:simulation|calibrate|check|import|trace|ranks|locks|overhead)-\w+")
# Seconds between making a folder and locking it, at most; and after which one of an earlier version is left over.
_MAKING_S, _EARLIER_S = 10.0, 86_400.0


@contextlib.contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A new folder of mode 0700, removed at the end. purpose: a word of lower-case letters, for whoever finds it."""
    sweep_temporary()
    folder = Path(tempfile.mkdtemp(prefix=f"tunemark-{purpose}."))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep_temporary() -> None:
    """Remove the folders that killed commands of this user left behind."""
    for folder in find_left_over():
        shutil.rmtree(folder, ignore_errors=True)


def find_left_over() -> list[Path]:
    """This user's marked folders that no process holds any more."""
    found = []
    for path in Path(tempfile.gettempdir()).glob("tunemark-*"):
        age_s = _MAKING_S if _MARKED.fullmatch(path.name) else _EARLIER_S if _EARLIER.fullmatch(path.name) else None
        with contextlib.suppress(OSError):
            state = path.lstat()
            is_own = stat.S_ISDIR(state.st_mode) and (not hasattr(os, "getuid") or state.st_uid == os.getuid())
            if age_s is None or not is_own or time.time() - state.st_mtime < age_s:
                continue
            lock = _lock(path)
            if lock is not None:
                os.close(lock)
                found.append(path)
    return sorted(found)


def _lock(folder: Path) -> int | None:
    """A descriptor with the folder's lock; None if another process has it, or on a system without such locks."""
    try:
        import fcntl  # absent on Windows

        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
