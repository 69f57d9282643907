"""The devices `cpu` and `cuda`, and the strategies on them, as the parent sees them: found without torch.

Peak FLOP/s are not stated here: the worker measures them on the machine itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.physics.peaks import peak
from tunemark.plugin.descriptors import Accelerator, Launch, Monitored, Strategy
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device
from tunemark_torch import layouts

# Carries out a product of strategies, each on its own axis of one mesh.
_MESH = "tunemark_torch.parallel.mesh:Mesh"

# glibc gives large blocks back to the kernel at once and takes them anew in the next step, page by page. Keeping them
# made a step of a 60 M-parameter Mistral 1.5 to 2.2 times as fast on two cores (November 2026).
_MALLOC = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864"


# Variables that hide AMD's GPUs from a job: ROCm's own, then HIP's; torch's builds for HIP heed CUDA's too.
_HIDE_AMD = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


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

    def elsewhere(self, size: str) -> Accelerator | None:
        """So many cores, or hosts x cores of each."""
        return _elsewhere(size, "core of another machine")

    def launch_elsewhere(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """The same, with the cores that each process finds there."""
        size, nodes = _units(accelerator)
        if not strategy.distributed and nodes not in (None, 1):
            raise _one_process(strategy, f"cores of {nodes} hosts", "a process is on one host")
        processes, threads = (size, 1) if strategy.distributed else (1, size)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "GLIBC_TUNABLES": _MALLOC}
        options = {"cores": "own", "oversubscribed": accelerator.oversubscribed}
        return Launch(processes=processes, threads=threads, environment=environment, options=options, nodes=nodes)

    def monitored(self, accelerator: Accelerator) -> Monitored:
        return Monitored(monitor="host", devices=("host",))

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
    """NVIDIA and AMD GPUs, which torch both calls cuda, or under another name AMD's alone. A size is a number of them.

    Of AMD's, torch's device is a die: an MI250 is two."""

    def __init__(
        self, root: Path = Path("/"), environment: Mapping[str, str] = os.environ, *, is_rocm: bool = False
    ) -> None:
        self.name = "rocm" if is_rocm else "cuda"
        self.runtime = "tunemark_torch.runtime:Rocm" if is_rocm else "tunemark_torch.runtime:Cuda"
        self._root, self._environment, self._is_rocm = root, environment, is_rocm

    def accelerators(self) -> Sequence[Accelerator]:
        chips = self._chips()
        return [some for size in range(1, len(chips) + 1) if (some := gpus(chips, size))]

    def accelerator(self, size: str) -> Accelerator | None:
        return gpus(self._chips(), int(size)) or _absent(int(size)) if _is_count(size) else None

    def default_size(self) -> str:
        return "1"

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """One process for each GPU, with an equal share of the cores' threads."""
        size = int(accelerator.name)
        if not strategy.distributed and size != 1:
            raise _one_process(strategy, f"{size} GPUs", "a process drives one GPU")
        threads = max(1, len(_cores()) // size)
        environment = {"OMP_NUM_THREADS": str(threads)}
        if "CUDA_DEVICE_ORDER" not in self._environment:
            # NVML counts in this order, so that its numbers and the job's mean the same GPU.
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        return Launch(processes=size, threads=threads, environment=environment)

    def monitored(self, accelerator: Accelerator) -> Monitored | None:
        """The vendor's library, by the GPUs that the job sees."""
        is_nvidia = not self._is_rocm and bool(_nvidia_smi() or _nvidia_files(self._root))
        shown = next((self._environment[v] for v in self._variables(is_nvidia) if v in self._environment), None)
        size = int(accelerator.name)
        names = [str(i) for i in range(size)]
        if shown is not None:
            names = [part.strip() for part in shown.split(",") if part.strip()][:size]
        return Monitored(monitor="nvml" if is_nvidia else "amdsmi", devices=tuple(names)) if names else None

    @staticmethod
    def _variables(is_nvidia: bool) -> tuple[str, ...]:
        """Those that hide GPUs from a job, the first that is set counts."""
        return ("CUDA_VISIBLE_DEVICES",) if is_nvidia else _HIDE_AMD

    def elsewhere(self, size: str) -> Accelerator | None:
        """So many GPUs, or hosts x GPUs of each."""
        return _elsewhere(size, "GPU")

    def launch_elsewhere(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        """One process for each GPU, with as many threads as a GPU's share of a host's cores mostly is at least."""
        size, nodes = _units(accelerator)
        if not strategy.distributed and size != 1:
            raise _one_process(strategy, f"{size} GPUs", "a process drives one GPU")
        options = {"gpus": size}
        return Launch(processes=size, threads=4, environment={"OMP_NUM_THREADS": "4"}, options=options, nodes=nodes)

    def _chips(self) -> list[tuple[str, int | None]]:
        """Name and memory of each GPU that the job would see."""
        nvidia = [] if self._is_rocm else _nvidia_smi() or _nvidia_files(self._root)
        found = nvidia or _amd_smi() or _amd_files(self._root)
        for variable in ("CUDA_VISIBLE_DEVICES", *(() if nvidia else _HIDE_AMD)):
            if variable in self._environment:
                return _visible(found, self._environment[variable])
        return found


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [Cpu(), Cuda(), Cuda(is_rocm=True)]


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
            product=_MESH,
            description="torch's DistributedDataParallel: a copy of the model in each process",
            can_evaluate=True,
            can_save=True,
            refusal=layouts.refusal,
        ),
        Strategy(
            name="fsdp",
            runtime=_MESH,
            product=_MESH,
            description="torch's FSDP2: weights, gradients and optimizer states in shards, gathered layer by layer",
            options={"reshard": "true: gather again for backward (the default); false: keep what forward gathered"},
            can_evaluate=True,
            can_save=True,
            refusal=layouts.refusal,
            needs={"torch": "2.6"},
        ),
        Strategy(
            name="tp",
            runtime=_MESH,
            product=_MESH,
            description="tensor parallel: each process has some heads and some of each MLP",
            options={"sequence_parallel": "true: between blocks each process has a part of the sequence (false)"},
            can_evaluate=True,
            can_save=True,
            data_ranks=layouts.one,
            refusal=layouts.refusal,
            needs={"torch": "2.6"},
        ),
        Strategy(
            name="pp",
            runtime=_MESH,
            product=_MESH,
            description="pipeline parallel: each process has some of the layers",
            options={
                "schedule": "one of " + ", ".join(layouts.SCHEDULES) + " (1f1b)",
                "virtual": "stages in each process (2), of the schedules " + ", ".join(layouts.SEVERAL),
            },
            data_ranks=layouts.one,
            micro_batches=layouts.stages_of_ranks,
            can_save=True,
            refusal=layouts.refusal,
            needs={"torch": "2.6"},
        ),
        Strategy(
            name="auto",
            runtime=_MESH,
            description="what a search chooses of these and their products: all are predicted, the best few tried",
            options={
                "trials": "layouts that are tried for real (4); 0 trusts the prediction",
                "micro_batch": "sequences, not to be chosen (as --micro-batch)",
                "checkpointing": "none, selective or full, not to be chosen (as --checkpointing)",
            },
            devices=("cpu", "cuda", "rocm"),
            is_search=True,
        ),
    ]


def _is_count(size: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]*", size) is not None


def _absent(size: int) -> Accelerator:
    """So many GPUs where there is none: more than this machine has, to be planned and not run."""
    return Accelerator(name=str(size), chip="GPU", chips=size, memory_bytes=None, oversubscribed=True, is_present=False)


def _elsewhere(size: str, chip: str) -> Accelerator | None:
    """A size beyond this machine: "16", or "2x8", hosts x devices of each."""
    found = re.fullmatch(r"(?:([1-9][0-9]*)x)?([1-9][0-9]*)", size)
    if found is None:
        return None
    nodes = None if found[1] is None else int(found[1])
    return Accelerator(name=size, chip=chip, chips=(nodes or 1) * int(found[2]), memory_bytes=None, nodes=nodes)


def _units(accelerator: Accelerator) -> tuple[int, int | None]:
    """(devices of all hosts, hosts where the size says how many)."""
    nodes, _, each = accelerator.name.rpartition("x")
    return int(each) * int(nodes or 1), int(nodes) if nodes else None


def _one_process(strategy: Strategy, what: str, why: str) -> BadExperiment:
    return BadExperiment(
        what=f"strategy {strategy.name!r} cannot use {what}",
        why=f"it is one process, and {why}",
        next="--strategy ddp, or --size 1",
    )


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


def _nvidia_files(root: Path) -> list[tuple[str, int | None]]:
    """GPUs by the files of the driver: /dev/nvidia0 and on."""
    found = [path for path in sorted((root / "dev").glob("nvidia*")) if path.name[len("nvidia") :].isdigit()]
    return [("NVIDIA GPU", None)] * len(found)


def _amd_files(root: Path) -> list[tuple[str, int | None]]:
    """GPUs by the driver's nodes that have vector units."""
    nodes = sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    return [("AMD GPU", None) for node in nodes if re.search(r"^simd_count [1-9]", _read(node), re.M)]


def _amd_smi() -> list[tuple[str, int | None]]:
    question = ["amd-smi", "static", "--asic", "--vram", "--json"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_amd_smi(answer)


def parse_amd_smi(answer: str) -> list[tuple[str, int | None]]:
    """Name and memory of each die that `amd-smi static --asic --vram --json` shows: a list, since ROCm 7 in an object.

    The dies of one package have the same module number: each is then named for what it is, "... GCD"."""
    try:
        rows = json.loads(answer)
        rows = rows.get("gpu_data", []) if isinstance(rows, dict) else rows
        found = [(str(row["asic"]["market_name"]), row["asic"].get("oam_id"), _mib(row.get("vram"))) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    modules = [(name, module) for name, module, _ in found]
    return [
        (f"{name} GCD" if module not in (None, "N/A") and modules.count((name, module)) > 1 else name, memory)
        for name, module, memory in found
    ]


def _mib(vram: object) -> int | None:
    """Bytes of {"size": {"value": 65520, "unit": "MB"}}, where AMD's MB are MiB."""
    size = vram.get("size") if isinstance(vram, dict) else None
    value = size.get("value") if isinstance(size, dict) else size
    return int(value) << 20 if isinstance(value, (int, float)) else None


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
