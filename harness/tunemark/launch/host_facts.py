"""Facts about this host that affect speed, read from a few small files before each attempt, never measured.

A fact that the host does not expose, as on many virtual machines, is None. Sources: the Linux kernel's documents
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

from tunemark_worker.linux_proc import read_cpu_model, read_text

_CPU = "sys/devices/system/cpu"


def read_host_facts(root: Path = Path("/")) -> Mapping[str, Any]:
    """Name, processor, and the settings of its clocks and memory.

    governor: of all cores, comma-separated if they differ. clock_min_hz, clock_max_hz: limits of the governor, of the
    first core. turbo, smt, numa_balancing: whether they are on. huge_pages: always, madvise or never. cpus,
    memory_bytes: of the whole host, whatever share this process has.
    """
    return {
        "name": socket.gethostname(),
        "platform": platform.platform(),
        "processor": processor_name(root),
        "cpus": os.cpu_count(),
        "memory_bytes": _read_memory_bytes(root),
        "governor": _read_governor(root),
        "clock_min_hz": _read_hertz(root, "scaling_min_freq"),
        "clock_max_hz": _read_hertz(root, "scaling_max_freq"),
        "turbo": _read_turbo(root),
        "smt": _read_switch(root / _CPU / "smt/active"),
        "huge_pages": _read_selected(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "numa_balancing": _read_switch(root / "proc/sys/kernel/numa_balancing"),
    }


def processor_name(root: Path = Path("/")) -> str:
    """CPU model name; empty if unknown."""
    return read_cpu_model(str(root / "proc/cpuinfo"))


def _read_governor(root: Path) -> str | None:
    paths = (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = {word for path in paths if (word := _read_text(path))}
    return ",".join(sorted(governors)) or None


def _read_hertz(root: Path, name: str) -> int | None:
    text = _read_text(root / _CPU / "cpu0/cpufreq" / name)
    return int(text) * 1000 if text and text.isdecimal() else None


def _read_turbo(root: Path) -> bool | None:
    off = _read_switch(root / _CPU / "intel_pstate/no_turbo")
    return _read_switch(root / _CPU / "cpufreq/boost") if off is None else not off


def _read_memory_bytes(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read_text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _read_switch(path: Path) -> bool | None:
    text = _read_text(path)
    return text != "0" if text and text.isdecimal() else None


def _read_selected(path: Path) -> str | None:
    match = re.search(r"\[(\w+)\]", _read_text(path) or "")
    return match.group(1) if match else None


def _read_text(path: Path) -> str | None:
    return read_text(str(path)).strip() or None
