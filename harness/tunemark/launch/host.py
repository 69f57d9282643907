"""What this host says of itself that bears on speed: read from a few small files before each attempt, never measured.

A fact that the host does not tell, as virtual machines tell little, is None. Sources: the Linux kernel's documents
admin-guide/pm/cpufreq (scaling_governor, cpuinfo_max_freq, boost), admin-guide/pm/intel_pstate (no_turbo),
admin-guide/cpu-load and ABI/testing/sysfs-devices-system-cpu (smt/active), admin-guide/mm/transhuge (enabled), and
admin-guide/sysctl/kernel (numa_balancing).
"""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CPU = "sys/devices/system/cpu"


def host_facts(root: Path = Path("/")) -> Mapping[str, Any]:
    """Name, processor, and how its clocks and memory are governed.

    governor: of every core, joined by commas where they differ. clock_min_hz, clock_max_hz: that the governor may
    choose between, of the first core. turbo, smt, numa_balancing: whether they are on. huge_pages: always, madvise or
    never. cpus, memory_bytes: of the whole host, whatever share this process has.
    """
    return {
        "name": socket.gethostname(),
        "platform": platform.platform(),
        "processor": processor(root),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory(root),
        "governor": _governor(root),
        "clock_min_hz": _hertz(root, "scaling_min_freq"),
        "clock_max_hz": _hertz(root, "scaling_max_freq"),
        "turbo": _turbo(root),
        "smt": _switch(root / _CPU / "smt/active"),
        "huge_pages": _chosen(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "numa_balancing": _switch(root / "proc/sys/kernel/numa_balancing"),
    }


def processor(root: Path = Path("/")) -> str:
    """The processor's name; empty where the host does not say."""
    text = _text(root / "proc/cpuinfo")
    if text is None:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")


def _governor(root: Path) -> str | None:
    paths = (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor")
    found = {word for path in paths if (word := _text(path))}
    return ",".join(sorted(found)) or None


def _hertz(root: Path, name: str) -> int | None:
    text = _text(root / _CPU / "cpu0/cpufreq" / name)
    return int(text) * 1000 if text and text.isdecimal() else None


def _turbo(root: Path) -> bool | None:
    off = _switch(root / _CPU / "intel_pstate/no_turbo")
    return _switch(root / _CPU / "cpufreq/boost") if off is None else not off


def _memory(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def _switch(path: Path) -> bool | None:
    text = _text(path)
    return text != "0" if text and text.isdecimal() else None


def _chosen(path: Path) -> str | None:
    found = re.search(r"\[(\w+)\]", _text(path) or "")
    return found.group(1) if found else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
