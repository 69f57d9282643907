"""Checks of memory: how much there is and who may have it, in which pages, on which node, and shared between processes.

Sources: the Linux kernel's documents filesystems/proc (meminfo), admin-guide/mm/transhuge, admin-guide/sysctl/kernel
(numa_balancing), admin-guide/sysctl/vm, admin-guide/cgroup-v2 (memory) and filesystems/tmpfs.
"""

from __future__ import annotations

import re
from pathlib import Path

from tunemark.cgroups import read_memory_limit
from tunemark.doctor.diagnosis import Diagnosis, fine, minor, severe, unknown
from tunemark.doctor.machine import Machine
from tunemark.doctor.processor_checks import WatchedTime
from tunemark.number_format import GIB, format_gib

# The kernel begins to reclaim pages of programs at work when about this share is left.
_LITTLE_LEFT, _SOME_LEFT = 0.05, 0.15
# Docker gives a container 64 MiB, at which NCCL, gloo and the workers of data loaders fail.
_SMALL_SHM_BYTES, _USUAL_SHM_BYTES = 64 << 20, GIB
_THP = "sys/kernel/mm/transparent_hugepage/enabled"


def check_numa(machine: Machine) -> Diagnosis:
    """Memory on several nodes, and pages that the kernel moves between them."""
    nodes = machine.find("sys/devices/system/node/node[0-9]*")
    if not nodes:
        return unknown("NUMA", "/sys/devices/system/node is not here")
    if len(nodes) == 1:
        return fine("NUMA", "one node")
    used = [path.name[4:] for path in nodes if set(_core_numbers(machine, path.name)) & set(machine.cores)]
    moves = machine.number("proc/sys/kernel/numa_balancing")
    evidence = f"{len(nodes)} nodes, the usable cores are on {len(used)}; numa_balancing is "
    evidence += "unknown" if moves is None else "on: pages move while steps are timed" if moves else "off"
    if len(used) <= 1 and not moves:
        return fine("NUMA", evidence)
    remedy = "echo 0 | sudo tee /proc/sys/kernel/numa_balancing" if moves else ""
    if len(used) > 1:
        node = used[0]
        remedy += ("; " if remedy else "") + f"numactl --cpunodebind={node} --membind={node} tunemark run ..."
    return minor("NUMA", evidence, remedy)


def check_huge_pages(machine: Machine) -> Diagnosis:
    """Whether the kernel may use pages of 2 MiB, of which large tensors need far fewer."""
    match = re.search(r"\[(\w+)\]", machine.read(_THP) or "")
    if match is None:
        return unknown("huge pages", f"/{_THP} is not here")
    words = match.group(1)
    if words != "never":
        return fine("huge pages", f"transparent huge pages: {words}")
    evidence = "transparent huge pages are off: more misses of the TLB, and more page faults while memory grows"
    return minor("huge pages", evidence, f"echo madvise | sudo tee /{_THP}")


def check_memory(machine: Machine) -> Diagnosis:
    """Memory that is still available, and the control group's limit of it."""
    total, available = _read_kib(machine, "MemTotal"), _read_kib(machine, "MemAvailable")
    if total is None or available is None:
        return unknown("memory", "/proc/meminfo does not say how much is available")
    evidence = f"{format_gib(available)} of {format_gib(total)} GiB are available"
    limit = read_memory_limit(machine.root)
    share = available / total
    if limit is not None and limit[0] < total:
        allowed, path = limit
        held = _held_bytes(machine, path.parent.relative_to(machine.root).as_posix())
        evidence += f"; {machine.shown(path)} allows {format_gib(allowed)} GiB"
        if held is not None:
            evidence += f", of which {format_gib(held)} are in use"
            share = min(share, max(0, allowed - held) / allowed if allowed else 0.0)
    remedy = (
        "end what holds memory (ps aux --sort=-rss | head), or raise the limit: docker update --memory SIZE CONTAINER"
    )
    if share < _LITTLE_LEFT:
        return severe("memory", evidence, remedy)
    if share < _SOME_LEFT:
        return minor("memory", evidence, remedy)
    if limit is not None and limit[0] < 0.9 * total:
        return minor("memory", evidence, "docker update --memory SIZE CONTAINER, if a run needs more")
    return fine("memory", evidence)


def read_available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs could still get here without swapping, within the control group's limit; None if unknown."""
    machine = Machine(root=root)
    available, limit = _read_kib(machine, "MemAvailable"), read_memory_limit(root)
    if available is None or limit is None:
        return available
    held = _held_bytes(machine, limit[1].parent.relative_to(root).as_posix()) or 0
    return min(available, max(0, limit[0] - held))


def check_swap(machine: Machine, seen: WatchedTime) -> Diagnosis:
    """Pages that go to disk and come back, which a step then waits for."""
    total, free = _read_kib(machine, "SwapTotal"), _read_kib(machine, "SwapFree")
    if total is None or free is None:
        return unknown("swap", "/proc/meminfo does not say whether there is swap")
    if not total:
        return fine("swap", "there is none")
    used = total - free
    evidence = f"{format_gib(used)} of {format_gib(total)} GiB are in use"
    if seen.swapped_pages:
        return severe(
            "swap", f"{evidence}; {seen.swapped_pages} pages were moved in {seen.seconds:g} s", "sudo swapoff -a"
        )
    if used > 0.1 * total:
        return minor(
            "swap",
            f"{evidence}, none moved in {seen.seconds:g} s",
            "sudo swapoff -a, before a run that needs the memory",
        )
    return fine("swap", evidence)


def check_shared_memory(machine: Machine) -> Diagnosis:
    """/dev/shm, through which processes of one job and workers of data loaders pass tensors."""
    size, free = _read_shm_bytes(machine)
    if size is None:
        return unknown("shared memory", "/dev/shm is not mounted, or its size is not known")
    evidence = f"/dev/shm has {_mib(size)}" + ("" if free is None else f", {_mib(free)} of it free")
    remedy = "sudo mount -o remount,size=8G /dev/shm; in a container: docker run --shm-size=8g, or --ipc=host"
    left = size if free is None else free
    if left <= _SMALL_SHM_BYTES:
        return severe("shared memory", f"{evidence}: NCCL, gloo and data loaders' workers fail with so little", remedy)
    if left < _USUAL_SHM_BYTES:
        return minor("shared memory", evidence, remedy)
    return fine("shared memory", evidence)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


def _read_shm_bytes(machine: Machine) -> tuple[int | None, int | None]:
    """(size, free bytes): by the mount's option where it states a size, and by the file system itself."""
    size = free = None
    for line in (machine.read("proc/self/mounts") or machine.read("proc/mounts") or "").splitlines():
        _, _, rest = line.partition(" ")
        place, _, rest = rest.partition(" ")
        options = rest.partition(" ")[2]
        if place == "/dev/shm" and (match := re.search(r"\bsize=(\d+)([kmg]?)", options)):
            size = int(match.group(1)) << {"": 0, "k": 10, "m": 20, "g": 30}[match.group(2)]
    path = machine.root / "dev/shm"
    if size is None or machine.root.as_posix() == "/":
        try:
            disk = machine.statvfs(path)
        except OSError:
            return size, None
        size = disk.f_blocks * disk.f_frsize if size is None else size
        free = min(size, disk.f_bavail * disk.f_frsize)
    return size, free


def _held_bytes(machine: Machine, folder: str) -> int | None:
    """What a control group holds and could not give back: without the pages of files."""
    used = machine.number(f"{folder}/memory.current")
    used = machine.number(f"{folder}/memory.usage_in_bytes") if used is None else used
    stat = machine.read(f"{folder}/memory.stat") or ""
    match = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
    return None if used is None else max(0, used - (int(match.group(1)) if match else 0))


def _core_numbers(machine: Machine, node: str) -> list[int]:
    """Of a list such as 0-3,8."""
    found: list[int] = []
    for part in (machine.read(f"sys/devices/system/node/{node}/cpulist") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def _read_kib(machine: Machine, name: str) -> int | None:
    """A line of /proc/meminfo in bytes."""
    match = re.search(rf"^{name}:\s+(\d+) kB", machine.read("proc/meminfo") or "", re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
