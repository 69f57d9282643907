"""Write files and folders that appear whole: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, before: Callable[[], None] = lambda: None) -> None:
    """Replace a file's content (UTF-8 if it is text); if that fails, the old content stays and nothing is left over.
    before: called when the new content is on the disk, and will take no more room there."""
    # Several threads, processes and hosts may write the same file at once.
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        before()
        os.replace(temporary, path)
    except BaseException:
        # A full disk may have created an empty file.
        temporary.unlink(missing_ok=True)
        raise


def write_folder_atomically(folder: Path, files: Mapping[Path, bytes], *, mode: int = 0o755) -> None:
    """Create a folder that does not exist yet, with files by their paths in it. Its parents are created too.

    mode: of the folder and those in it; files have the same without execution. No umask changes it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for relative, content in files.items():
            (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
            (temporary / relative).write_bytes(content)
        for path in (temporary, *temporary.rglob("*")):
            path.chmod(mode if path.is_dir() else mode & 0o666)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
