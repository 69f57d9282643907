"""Which processes carry a mark in their environment: children that outlive whom they were started by, in whatever
session, are found by it. Linux alone has the /proc that it takes."""

from __future__ import annotations

import os
from typing import List, Tuple

# The variable that a process and all that it starts inherit.
VARIABLE = "TUNEMARK_MARK"


def is_known() -> bool:
    """Whether this host can say it at all."""
    return os.path.isdir("/proc/self")


def processes(mark: str) -> List[Tuple[int, str]]:
    """(pid, command) of all but this process; dead ones that nobody has waited for are none."""
    found = []
    wanted = "{}={}".format(VARIABLE, mark).encode()
    for name in os.listdir("/proc") if is_known() else []:
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
