"""Read files of a store, which a stranger may have sent: regular files, and nothing that a link or a pipe names."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

# More digits than a float has room for.
_ENDLESS_NUMBER = re.compile(r"\d{300}")


def refuse_endless_numbers(text: str) -> None:
    """ValueError where a text has a number that cannot be computed with."""
    if _ENDLESS_NUMBER.search(text):
        raise ValueError("it has a number of more than 300 digits")


def read_stored_file(path: Path) -> bytes:
    """The content of a file in a store; OSError unless it is a regular file there, and no link to one elsewhere."""
    # Opening a pipe without O_NONBLOCK would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        return file.read()
