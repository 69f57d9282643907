"""Read files of a store, which a stranger may have sent: regular files, and nothing that a link or a pipe names."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

# Each digit as 0, everything else as a blank: a pattern would look at a long line a hundred times as long.
_DIGITS_ALONE = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
# More digits than a float has room for.
_ENDLESS_NUMBER = b"0" * 300


def refuse_endless_numbers(text: str) -> None:
    """ValueError where a text has a number that cannot be computed with."""
    if len(text) >= len(_ENDLESS_NUMBER) and _ENDLESS_NUMBER in text.encode(errors="replace").translate(_DIGITS_ALONE):
        raise ValueError("it has a number of more than 300 digits")


def read_stored_file(path: Path) -> bytes:
    """The content of a file in a store; OSError unless it is a regular file there, and no link to one elsewhere."""
    with open_stored_file(path) as file:
        return file.read()


def open_stored_file(path: Path) -> BinaryIO:
    """The same, opened."""
    # Opening a pipe without O_NONBLOCK would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no file")
    return open(descriptor, "rb")  # the caller closes it
