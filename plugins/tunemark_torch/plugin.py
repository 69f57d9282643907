"""The devices `cpu` and `cuda`, and the strategies `none` and `ddp`, as the parent sees them: found without torch.

Peak FLOP/s are not stated here: the worker measures them on the machine itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.physics.peaks import peak
from tunemark.plugin.descriptors import Accelerator, Launch, Strategy
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device

# glibc gives large blocks back to the kernel at once and takes them anew in the next step, page by page. Keeping them
# made a step of a 60 M-parameter Mistral 1.5 to 2.2 times as fast on two cores (November 2026).
_MALLOC = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864"


class Cpu:
    """The cores that this process may use. A size is a number of them."""

    name = "cpu"
    runtime = "tunemark_torch.runtime:Cpu"

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> None:
        self._root, self._environment = root, environment

    def accelerators(self) -> Sequence[Accelerator]:
        return [self._accelerator(size) for size in range(1, self._available() + 1)]

    def accelerator(self, size: str) -> Accelerator | None:
        return self._accelerator(int(size)) if _is_count(size) else None

    def default_size(self) -> str:
        return str(self._available())

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """One process with a thread per core, or one process of one thread per core; each bound to its cores."""
        size, cores = int(accelerator.name), _cores()
        ours = [cores[i % len(cores)] for i in range(size)]
        processes, threads = (size, 1) if strategy.distributed else (1, size)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if "GLIBC_TUNABLES" not in self._environment:
            environment["GLIBC_TUNABLES"] = _MALLOC
        bound = [[core] for core in ours] if strategy.distributed else [sorted(set(ours))]
        return Launch(processes=processes, threads=threads, environment=environment, options={"cores": bound})

    def _accelerator(self, size: int) -> Accelerator:
        return Accelerator(
            name=str(size),
            chip=f"core of {_processor(self._root)}",
            chips=size,
            memory_bytes=_memory_bytes(self._root),
            oversubscribed=size > self._available(),
        )

    def _available(self) -> int:
        return min([len(_cores()), *_quotas(self._root)])


class Cuda:
    """NVIDIA and AMD GPUs, which torch both calls cuda. A size is a number of them."""

    name = "cuda"
    runtime = "tunemark_torch.runtime:Cuda"

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> None:
        self._root, self._environment = root, environment

    def accelerators(self) -> Sequence[Accelerator]:
        chips = self._chips()
        return [some for size in range(1, len(chips) + 1) if (some := gpus(chips, size))]

    def accelerator(self, size: str) -> Accelerator | None:
        return gpus(self._chips(), int(size)) if _is_count(size) else None

    def default_size(self) -> str:
        return "1"

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """One process for each GPU, with an equal share of the cores' threads."""
        size = int(accelerator.name)
        if not strategy.distributed and size != 1:
            raise BadExperiment(
                what=f"strategy {strategy.name!r} cannot use {size} GPUs",
                why="it is one process, and a process drives one GPU",
                next="--strategy ddp, or --size 1",
            )
        threads = max(1, len(_cores()) // size)
        return Launch(processes=size, threads=threads, environment={"OMP_NUM_THREADS": str(threads)})

    def _chips(self) -> list[tuple[str, int | None]]:
        """Name and memory of each GPU that the job would see."""
        found = _nvidia_smi() or _device_files(self._root)
        for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            if variable in self._environment:
                return _visible(found, self._environment[variable])
        return found


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [Cpu(), Cuda()]


@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="none",
            runtime="tunemark_torch.runtime:NoStrategy",
            description="one process",
            distributed=False,
            can_evaluate=True,
            can_save=True,
        ),
        Strategy(
            name="ddp",
            runtime="tunemark_torch.runtime:Ddp",
            description="torch's DistributedDataParallel: a copy of the model in each process",
            can_evaluate=True,
            can_save=True,
        ),
    ]


def _is_count(size: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]*", size) is not None


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quotas(root: Path) -> list[int]:
    """Whole cores' worth of time that cgroups of version 2 allow: this process's, and those above it."""
    allowed = []
    for folder in _cgroups(root):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            allowed.append(max(1, int(quota) // int(period)))
    return allowed


def _memory_bytes(root: Path) -> int | None:
    """The machine's memory, or what a cgroup leaves of it."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    limits = [int(total.group(1)) * 1024] if total else []
    limits += [int(text) for folder in _cgroups(root) if (text := _read(folder / "memory.max")).isdigit()]
    return min(limits, default=None)


def _cgroups(root: Path) -> list[Path]:
    top = root / "sys/fs/cgroup"
    own = re.search(r"^0::/(.*)$", _read(root / "proc/self/cgroup"), re.M)
    folder = top / own.group(1) if own else top
    return [folder, *(parent for parent in folder.parents if parent == top or top in parent.parents)]


def _processor(root: Path) -> str:
    name = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.M)
    return name.group(1).strip() if name else os.uname().machine


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def gpus(chips: list[tuple[str, int | None]], size: int) -> Accelerator | None:
    """The first `size` GPUs; None on a machine without any."""
    if not chips:
        return None
    used = chips[:size]
    memories = [memory for _, memory in used if memory is not None]
    names = list(dict.fromkeys(name for name, _ in used))
    # Of different chips the sum says nothing; and a peak that can be passed is none to divide by.
    peaks = [p for precision in ("fp32", "bf16") if len(names) == 1 and (p := peak(names[0], precision, size))]
    peaks = [p for p in peaks if p.is_ceiling]
    return Accelerator(
        name=str(size),
        chip=" + ".join(names),
        chips=size,
        memory_bytes=sum(memories) if len(memories) == size else None,
        peak_flops={p.precision: p.flops for p in peaks},
        source=peaks[0].source if peaks else None,
        oversubscribed=size > len(chips),
    )


def _nvidia_smi() -> list[tuple[str, int | None]]:
    question = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_nvidia_smi(answer)


def parse_nvidia_smi(answer: str) -> list[tuple[str, int | None]]:
    """Lines "name, MiB", the memory "[N/A]" where it is shared with the host."""
    rows = [line.rpartition(",") for line in answer.splitlines() if "," in line]
    return [(name.strip(), int(mib) * 2**20 if mib.strip().isdigit() else None) for name, _, mib in rows]


def _device_files(root: Path) -> list[tuple[str, int | None]]:
    """GPUs by what the drivers show: /dev/nvidia0 and on, or AMD's nodes with vector units."""
    nvidia = [path for path in sorted((root / "dev").glob("nvidia*")) if path.name[len("nvidia") :].isdigit()]
    if nvidia:
        return [("NVIDIA GPU", None)] * len(nvidia)
    nodes = sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    return [("AMD GPU", None) for node in nodes if re.search(r"^simd_count [1-9]", _read(node), re.M)]


def _visible(chips: list[tuple[str, int | None]], variable: str) -> list[tuple[str, int | None]]:
    """What CUDA_VISIBLE_DEVICES leaves: as CUDA does, all from the first unknown index on are invisible."""
    seen = []
    for item in filter(None, (part.strip() for part in variable.split(","))):
        if item.isdigit() and int(item) < len(chips):
            seen.append(chips[int(item)])
        elif item.startswith(("GPU-", "MIG-")) and chips:
            seen.append(chips[0])
        else:
            break
    return seen
