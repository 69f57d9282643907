"""Find processes that carry a mark in their environment, such as children that outlive their parent, in any session.
Needs Linux's /proc."""

from __future__ import annotations

import os
from typing import List, Tuple

# Environment variable with the mark, which all child processes inherit.
MARK_VARIABLE = "TUNEMARK_MARK"


def is_supported() -> bool:
    """Whether this host has the /proc that the search needs."""
    return os.path.isdir("/proc/self")


def find_marked_processes(mark: str) -> List[Tuple[int, str]]:
    """(pid, command) of all processes with the mark, without this process and zombies."""
    found = []
    wanted = "{}={}".format(MARK_VARIABLE, mark).encode()
    for name in os.listdir("/proc") if is_supported() else []:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open("/proc/{}/environ".format(name), "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            with open("/proc/{}/cmdline".format(name), "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if command:
            found.append((int(name), command[:200]))
    return found
