"""The limits of this process's control groups, of version 1 and 2, under a root that a test can replace.

Sources: the Linux kernel's documents admin-guide/cgroup-v2, admin-guide/cgroup-v1/memory and scheduler/sched-bwc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_TOP = "sys/fs/cgroup"
# Version 1 states "no limit" as the largest multiple of a page below 2^63.
_NO_LIMIT_BYTES = 1 << 60


def read_cpu_quota(root: Path) -> tuple[float, Path] | None:
    """(cores that the kernel lets the process use on average, the file that says so); None without a quota."""
    found = []
    for folder in _folders(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        found.append((quota, period, folder / "cpu.max"))
    for folder in _folders(root, "cpu"):
        path = folder / "cpu.cfs_quota_us"
        found.append((_read(path), _read(folder / "cpu.cfs_period_us"), path))
    known = [(int(q) / int(p), path) for q, p, path in found if q.isdigit() and p.isdigit() and int(p)]
    return min(known, default=None)


def read_memory_limit(root: Path) -> tuple[int, Path] | None:
    """(bytes that the process's group may hold, the file that says so); None without a limit."""
    paths = [folder / "memory.max" for folder in _folders(root, "")]
    paths += [folder / "memory.limit_in_bytes" for folder in _folders(root, "memory")]
    known = [(int(text), path) for path in paths if (text := _read(path)).isdigit() and int(text) < _NO_LIMIT_BYTES]
    return min(known, default=None)


def read_throttled_periods(root: Path) -> int | None:
    """Periods in which the kernel stopped the process's group because its CPU quota was used up, since the group was
    made; None if no group counts them."""
    counts = []
    for folder in [*_folders(root, ""), *_folders(root, "cpu")]:
        match = re.search(r"^nr_throttled (\d+)$", _read(folder / "cpu.stat"), re.MULTILINE)
        if match:
            counts.append(int(match.group(1)))
    return max(counts, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's group and of its parents. controller: of version 1; "" is version 2."""
    top = root / _TOP
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (controller == "" and number == "0" and not controllers) or (
            controller and controller in controllers.split(",")
        ):
            mounts = [top, top / "unified"] if not controller else [top / controllers, top / controller]
            for mount in dict.fromkeys(mounts):
                # Within a container the path may be one of the host, of which only the top is seen.
                own = mount / path.lstrip("/")
                yield from [own, *(parent for parent in own.parents if parent == mount or mount in parent.parents)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
