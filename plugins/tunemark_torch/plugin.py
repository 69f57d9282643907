"""The devices `cpu`, `cuda` and `rocm` and the strategies on them, as the parent process sees them, without torch.

A CPU's peak FLOP/s are not stated here: the worker measures them on the machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from tunemark.cgroups import read_cpu_quota, read_memory_limit
from tunemark.errors import BadExperiment
from tunemark.physics.chip_peaks import find_chip, find_peak
from tunemark.plugin.descriptors import Accelerator, LaunchConfig, MonitorTarget, Strategy, StrategyLayout
from tunemark.plugin.hardware import DeviceFacts, Efficiency
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device
from tunemark_torch import layout_checks
from tunemark_torch.cpu_allocator import GLIBC_VARIABLE, KEEP_FREED_BLOCKS, allocator_environment

# What a worker's process holds besides tensors: the interpreter, torch, transformers and a model's modules; and the
# share by which a heap of glibc is larger than the blocks in it. Chosen while looking at cells of `tunemark fit` on 30
# November 2026: torch 2.13, transformers 5.23, mistral-tiny of 128 tokens, allocator system. What
# `benchmarks/fit_and_plan.py` shows of the same model, sequence and installation is no independent check of them.
_PROCESS_BYTES = 0.51e9
_HEAP_SHARE = 0.04

# Runs a product of strategies, each on its own axis of one device mesh.
_MESH = "tunemark_torch.parallel.mesh:MeshStrategy"

# Variables that restrict which AMD GPUs a job sees: ROCm's, then HIP's; torch's HIP builds also obey CUDA's.
_AMD_VISIBILITY_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


# On a CPU no thread runs ahead of the kernels, and no core communicates while it computes.
_CPU_EFFICIENCY = Efficiency(
    gemm={"bf16": 0.6, "fp32": 0.6},
    attention=0.1,
    memory=0.7,
    host_s=20e-6,
    host_order=1.0,
    data_hidden=0.0,
    step_s=5e-3,
    straggle=0.0,
)


class CpuDevice:
    """The CPU cores that this process may use. A size is a number of cores."""

    name = "cpu"
    runtime = "tunemark_torch.runtime:CpuRuntime"

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

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """One process with a thread per core, or one single-threaded process per core; each is pinned to its cores."""
        size, cores = int(accelerator.name), _usable_cores()
        pinned = [cores[i % len(cores)] for i in range(size)]
        processes, threads = (size, 1) if strategy.distributed else (1, size)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if GLIBC_VARIABLE not in self._environment:
            environment[GLIBC_VARIABLE] = KEEP_FREED_BLOCKS
        bound = [[core] for core in pinned] if strategy.distributed else [sorted(set(pinned))]
        return LaunchConfig(processes=processes, threads=threads, environment=environment, options={"cores": bound})

    def allocator_environment(self, name: str) -> Mapping[str, str]:
        """The variables of an allocator; its library must be where the dynamic linker looks."""
        return allocator_environment(name, self._root)

    def remote_accelerator(self, size: str) -> Accelerator | None:
        """A number of cores, or hosts x cores per host."""
        return _remote_accelerator(size, "core of another machine")

    def remote_launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """As `launch`, except that each process picks its cores on its own host."""
        size, nodes = _devices_and_hosts(accelerator)
        if not strategy.distributed and nodes not in (None, 1):
            raise _single_process_error(strategy, f"cores of {nodes} hosts", "a process is on one host")
        processes, threads = (size, 1) if strategy.distributed else (1, size)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment[GLIBC_VARIABLE] = KEEP_FREED_BLOCKS
        options = {"cores": "own", "oversubscribed": accelerator.oversubscribed}
        return LaunchConfig(processes=processes, threads=threads, environment=environment, options=options, nodes=nodes)

    def monitor_target(self, accelerator: Accelerator) -> MonitorTarget:
        return MonitorTarget(monitor="host", devices=("host",))

    def limit_memory(self, launch: LaunchConfig, limit_bytes: int) -> LaunchConfig:
        """Each process gets an equal share of the bytes, as its limit of private memory."""
        return replace(launch, options={**launch.options, "memory_limit_bytes": limit_bytes // launch.processes})

    def assumed_facts(self, launch: LaunchConfig) -> DeviceFacts:
        """Rough figures of server cores of 2020 to 2025, good enough to rank layouts. Computation and communication
        share the cores and do not overlap. Memory is that of the process (`_PROCESS_BYTES`)."""
        threads = launch.threads
        return DeviceFacts(
            name=f"{threads} CPU cores",
            kind="cpu",
            peak_flops={"fp32": 1e11 * threads, "bf16": 2e11 * threads},
            memory_bytes=None,
            bandwidth_bytes_per_s=10e9 * threads,
            node=max(launch.processes, 1),
            intra_bytes_per_s=1.5e9,
            inter_bytes_per_s=1.5e9,
            intra_s=100e-6,
            inter_s=100e-6,
            efficiency=_CPU_EFFICIENCY,
            residual=0.5,
            source="figures assumed of a CPU core",
            workspace_bytes=_PROCESS_BYTES,
            shares_memory=True,
            heap_share=_HEAP_SHARE,
            keeps_blocks=launch.environment.get(GLIBC_VARIABLE) == KEEP_FREED_BLOCKS,
        )

    def _accelerator(self, size: int) -> Accelerator:
        return Accelerator(
            name=str(size),
            chip=f"core of {_processor_name(self._root)}",
            chips=size,
            memory_bytes=_memory_bytes(self._root),
            oversubscribed=size > self._available(),
        )

    def _available(self) -> int:
        quota = read_cpu_quota(self._root)
        return len(_usable_cores()) if quota is None else max(1, min(len(_usable_cores()), int(quota[0])))


# torch reads this one on AMD's GPUs too.
_GPU_VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
_GPU_ALLOCATORS = {"expandable": "expandable_segments:True", "cuda-async": "backend:cudaMallocAsync"}
_GPU_NAMES = " or ".join(_GPU_ALLOCATORS)


class CudaDevice:
    """NVIDIA and AMD GPUs, both of which torch calls cuda; as `rocm` only AMD GPUs. A size is a number of GPUs.

    On AMD a torch device is one die: an MI250 counts as two."""

    def __init__(
        self, root: Path = Path("/"), environment: Mapping[str, str] = os.environ, *, is_rocm: bool = False
    ) -> None:
        self.name = "rocm" if is_rocm else "cuda"
        self.runtime = "tunemark_torch.runtime:RocmRuntime" if is_rocm else "tunemark_torch.runtime:CudaRuntime"
        self._root, self._environment, self._is_rocm = root, environment, is_rocm

    def accelerators(self) -> Sequence[Accelerator]:
        chips = self._visible_chips()
        return [some for size in range(1, len(chips) + 1) if (some := make_gpu_accelerator(chips, size))]

    def accelerator(self, size: str) -> Accelerator | None:
        if not _is_count(size):
            return None
        # GPUs on a machine that has none can be planned, but not run on.
        return make_gpu_accelerator(self._visible_chips(), int(size)) or Accelerator(
            name=size, chip="GPU", chips=int(size), memory_bytes=None, oversubscribed=True, is_present=False
        )

    def default_size(self) -> str:
        return "1"

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """One process per GPU, each with an equal share of the CPU cores as threads."""
        size = int(accelerator.name)
        if not strategy.distributed and size != 1:
            raise _single_process_error(strategy, f"{size} GPUs", "a process drives one GPU")
        threads = max(1, len(_usable_cores()) // size)
        environment = {"OMP_NUM_THREADS": str(threads)}
        if "CUDA_DEVICE_ORDER" not in self._environment:
            # NVML numbers GPUs in this order, so its indices and the job's mean the same GPU.
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        return LaunchConfig(processes=size, threads=threads, environment=environment)

    def allocator_environment(self, name: str) -> Mapping[str, str]:
        """The variable of torch's allocator of GPU memory, as torch documents it (notes on CUDA, "Optimizing memory
        usage with PYTORCH_CUDA_ALLOC_CONF"). Not run on hardware."""
        if name not in _GPU_ALLOCATORS or (self._is_rocm and name == "cuda-async"):
            raise BadExperiment(
                what=f"{self.name} has no allocator {name}",
                why="it is CUDA's" if name in _GPU_ALLOCATORS else "it is one of host memory",
                next=f"--allocator tuned, which leaves it as it is, or {'expandable' if self._is_rocm else _GPU_NAMES}",
            )
        return {_GPU_VARIABLE: _GPU_ALLOCATORS[name]}

    def monitor_target(self, accelerator: Accelerator) -> MonitorTarget | None:
        """The vendor's monitoring library, and the GPUs that the job sees."""
        is_nvidia = not self._is_rocm and bool(_nvidia_smi() or _nvidia_device_files(self._root))
        # The first variable that is set applies.
        variables = ("CUDA_VISIBLE_DEVICES",) if is_nvidia else _AMD_VISIBILITY_VARIABLES
        listed = next((self._environment[v] for v in variables if v in self._environment), None)
        size = int(accelerator.name)
        names = [str(i) for i in range(size)]
        if listed is not None:
            names = [name.strip() for name in listed.split(",") if name.strip()][:size]
        return MonitorTarget(monitor="nvml" if is_nvidia else "amdsmi", devices=tuple(names)) if names else None

    def limit_memory(self, launch: LaunchConfig, limit_bytes: int) -> LaunchConfig:
        """Each process gets an equal share of the bytes, as the limit of torch's allocator. Not run on hardware."""
        return replace(launch, options={**launch.options, "memory_limit_bytes": limit_bytes // launch.processes})

    def remote_accelerator(self, size: str) -> Accelerator | None:
        """A number of GPUs, or hosts x GPUs per host."""
        return _remote_accelerator(size, "GPU")

    def remote_launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """One process per GPU with 4 threads, which is at most a GPU's share of the cores on most hosts."""
        size, nodes = _devices_and_hosts(accelerator)
        if not strategy.distributed and size != 1:
            raise _single_process_error(strategy, f"{size} GPUs", "a process drives one GPU")
        own = {"OMP_NUM_THREADS": "4"}
        return LaunchConfig(processes=size, threads=4, environment=own, options={"gpus": size}, nodes=nodes)

    def drives(self, chip: str) -> bool:
        return find_chip(chip).vendor == ("AMD" if self._is_rocm else "NVIDIA")

    def _visible_chips(self) -> list[tuple[str, int | None]]:
        """(name, memory in bytes or None) of each GPU that the job would see."""
        nvidia = [] if self._is_rocm else _nvidia_smi() or _nvidia_device_files(self._root)
        found = nvidia or _amd_smi() or _amd_topology_nodes(self._root)
        for variable in ("CUDA_VISIBLE_DEVICES", *(() if nvidia else _AMD_VISIBILITY_VARIABLES)):
            if variable in self._environment:
                return _visible_gpus(found, self._environment[variable])
        return found


# Without zero-bubble schedules, which the cost model times as interleaved ones. Doubling the stages of each rank halves
# the bubble and doubles what the pipeline sends.
_SEARCHED_SCHEDULES: tuple[Mapping[str, str], ...] = (
    {},
    {"schedule": "gpipe"},
    {"schedule": "interleaved"},
    {"schedule": "interleaved", "virtual": "4"},
)


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [CpuDevice(), CudaDevice(), CudaDevice(is_rocm=True)]


_mesh_strategy = functools.partial(
    Strategy,
    runtime=_MESH,
    combined_runtime=_MESH,
    can_save=True,
    refusal=layout_checks.refusal,
    layout_versions=layout_checks.layout_versions,
)


# Long: one entry for each strategy.
@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="none",
            runtime="tunemark_torch.runtime:NoStrategy",
            description="one process",
            distributed=False,
            layout=StrategyLayout(degree="single"),
            can_evaluate=True,
            can_save=True,
        ),
        Strategy(
            name="ddp",
            runtime="tunemark_torch.runtime:Ddp",
            combined_runtime=_MESH,
            description="torch's DistributedDataParallel: a full copy of the model in each process",
            layout=StrategyLayout(degree="data", order=1),
            can_evaluate=True,
            can_save=True,
            refusal=layout_checks.refusal,
            layout_versions=layout_checks.layout_versions,
        ),
        _mesh_strategy(
            name="fsdp",
            description="torch's FSDP2: weights, gradients and optimizer states in shards, gathered layer by layer",
            options={"reshard": "true: gather again for backward (the default); false: keep what forward gathered"},
            layout=StrategyLayout(
                degree="shard",
                order=2,
                search_options=({}, {"reshard": "false"}),
                calibration_options=({"reshard": "false"},),
                settings=layout_checks.layout_settings,
            ),
            can_evaluate=True,
        ),
        _mesh_strategy(
            name="tp",
            description="tensor parallel: each process holds some of the heads and a part of each MLP",
            options={"sequence_parallel": "true: between blocks each process holds a part of the sequence (false)"},
            layout=StrategyLayout(
                degree="tensor",
                order=3,
                search_options=({}, {"sequence_parallel": "true"}),
                calibration_options=({"sequence_parallel": "true"},),
                settings=layout_checks.layout_settings,
            ),
            can_evaluate=True,
            data_ranks=layout_checks.one_data_rank,
        ),
        _mesh_strategy(
            name="pp",
            description="pipeline parallel: each process holds some of the layers",
            options={
                "schedule": "one of " + ", ".join(layout_checks.SCHEDULES) + " (1f1b)",
                "virtual": "stages per process (2), for the schedules "
                + ", ".join(layout_checks.MULTI_STAGE_SCHEDULES),
            },
            layout=StrategyLayout(
                degree="pipeline",
                order=0,
                search_options=_SEARCHED_SCHEDULES,
                calibration_options=({"schedule": "interleaved"},),
                settings=layout_checks.layout_settings,
            ),
            data_ranks=layout_checks.one_data_rank,
            micro_batches=layout_checks.micro_batches_to_fill,
        ),
        Strategy(
            name="auto",
            runtime=_MESH,
            description="searches these strategies and their products: predicts all, measures a few, runs the best",
            options={
                "trials": "how many layouts are measured (4); 0 trusts the prediction",
                "micro_batch": "a fixed number of sequences instead of a searched one (as --micro-batch)",
                "checkpointing": "none, selective or full instead of a searched one (as --checkpointing)",
            },
            devices=("cpu", "cuda", "rocm"),
            is_search=True,
        ),
    ]


def _is_count(size: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]*", size) is not None


def _remote_accelerator(size: str, chip: str) -> Accelerator | None:
    """A size on other machines: "16" devices, or "2x8", hosts x devices per host."""
    found = re.fullmatch(r"(?:([1-9][0-9]*)x)?([1-9][0-9]*)", size)
    if found is None:
        return None
    nodes = None if found[1] is None else int(found[1])
    return Accelerator(name=size, chip=chip, chips=(nodes or 1) * int(found[2]), memory_bytes=None, nodes=nodes)


def _devices_and_hosts(accelerator: Accelerator) -> tuple[int, int | None]:
    """(devices over all hosts, number of hosts or None if the size does not state it)."""
    nodes, _, each = accelerator.name.rpartition("x")
    return int(each) * int(nodes or 1), int(nodes) if nodes else None


def _single_process_error(strategy: Strategy, what: str, why: str) -> BadExperiment:
    return BadExperiment(
        what=f"strategy {strategy.name!r} cannot use {what}",
        why=f"it is one process, and {why}",
        next="--strategy ddp, or --size 1",
    )


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _memory_bytes(root: Path) -> int | None:
    """The machine's memory, or a lower cgroup limit."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    limits = [int(total.group(1)) * 1024] if total else []
    limit = read_memory_limit(root)
    return min([*limits, *([limit[0]] if limit is not None else [])], default=None)


def _processor_name(root: Path) -> str:
    name = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.M)
    return name.group(1).strip() if name else os.uname().machine


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def make_gpu_accelerator(chips: list[tuple[str, int | None]], size: int) -> Accelerator | None:
    """The accelerator of the first `size` GPUs; None on a machine without any."""
    if not chips:
        return None
    used = chips[:size]
    memories = [memory for _, memory in used if memory is not None]
    names = list(dict.fromkeys(name for name, _ in used))
    # No peak for a mix of chips, nor for a chip whose stated peak can be exceeded: MFU would mean nothing.
    peaks = [
        p for precision in ("fp32", "bf16", "fp8") if len(names) == 1 and (p := find_peak(names[0], precision, size))
    ]
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


def _ask(*question: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    try:
        return subprocess.run(question, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _nvidia_smi() -> list[tuple[str, int | None]]:
    return parse_nvidia_smi(_ask("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"))


def parse_nvidia_smi(answer: str) -> list[tuple[str, int | None]]:
    """(name, memory in bytes) per line "name, MiB"; "[N/A]", memory shared with the host, is None."""
    rows = [line.rpartition(",") for line in answer.splitlines() if "," in line]
    return [(name.strip(), int(mib) * 2**20 if mib.strip().isdigit() else None) for name, _, mib in rows]


def _nvidia_device_files(root: Path) -> list[tuple[str, int | None]]:
    """GPUs by the driver's device files, /dev/nvidia0 and so on."""
    found = [path for path in sorted((root / "dev").glob("nvidia*")) if path.name[len("nvidia") :].isdigit()]
    return [("NVIDIA GPU", None)] * len(found)


def _amd_topology_nodes(root: Path) -> list[tuple[str, int | None]]:
    """GPUs by the kernel driver's topology nodes that have SIMD units."""
    nodes = sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"))
    return [("AMD GPU", None) for node in nodes if re.search(r"^simd_count [1-9]", _read(node), re.M)]


def _amd_smi() -> list[tuple[str, int | None]]:
    return parse_amd_smi(_ask("amd-smi", "static", "--asic", "--vram", "--json"))


def parse_amd_smi(answer: str) -> list[tuple[str, int | None]]:
    """(name, memory in bytes) of each die in `amd-smi static --asic --vram --json`: a list, since ROCm 7 in an object.

    Dies of one package share a module number (`oam_id`); their names then end in " GCD"."""
    try:
        rows = json.loads(answer)
        rows = rows.get("gpu_data", []) if isinstance(rows, dict) else rows
        found = [(str(row["asic"]["market_name"]), row["asic"].get("oam_id"), _bytes(row.get("vram"))) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    modules = [(name, module) for name, module, _ in found]
    return [
        (f"{name} GCD" if module not in (None, "N/A") and modules.count((name, module)) > 1 else name, memory)
        for name, module, memory in found
    ]


def _bytes(vram: object) -> int | None:
    """Bytes of {"size": {"value": 65520, "unit": "MB"}}; AMD's MB are MiB."""
    size = vram.get("size") if isinstance(vram, dict) else None
    value = size.get("value") if isinstance(size, dict) else size
    return int(value) << 20 if isinstance(value, (int, float)) else None


def _visible_gpus(chips: list[tuple[str, int | None]], variable: str) -> list[tuple[str, int | None]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible; as in CUDA, the first unknown index hides all after it."""
    seen = []
    for item in filter(None, (name.strip() for name in variable.split(","))):
        if item.isdigit() and int(item) < len(chips):
            seen.append(chips[int(item)])
        elif item.startswith(("GPU-", "MIG-")) and chips:
            seen.append(chips[0])
        else:
            break
    return seen
