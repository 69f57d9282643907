"""The machine as the checks see it: files under a root, disks, variables and programs, which a test can plant."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Seconds for a vendor's program to answer; the first question to an idle GPU's driver takes some.
_ANSWER_S = 20.0


def ask_program(*words: str) -> str | None:
    """What a program prints; None where it is not installed, fails or does not answer."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ANSWER_S, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """root: of the file system. cores: those that this process may use. wait: passes the time of a check that watches
    the machine, `watch_s` seconds. statvfs, ask: as `os.statvfs` and `ask_program`."""

    root: Path = Path("/")
    cores: Sequence[int] = field(default_factory=_usable_cores)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    watch_s: float = 1.0
    wait: Callable[[float], None] = time.sleep
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    ask: Callable[..., str | None] = ask_program

    def read(self, path: str) -> str | None:
        """The text of a file without white space around it; None where it cannot be read, or is empty."""
        try:
            return (self.root / path).read_text(errors="replace").strip() or None
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        text = self.read(path)
        return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None

    def find(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern))

    def shown(self, path: Path) -> str:
        """A path below the root as it is on the machine."""
        return f"/{path.relative_to(self.root)}"
