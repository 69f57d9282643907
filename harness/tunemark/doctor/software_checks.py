"""Checks of the software: the allocator, the torch that trains, variables that bind threads, versions with known
faults, disks, and whether a run can do without a network.

Sources: glibc's manual, "Memory Allocation Tunables"; GNU libgomp's manual, "OpenMP Environment Variables"; torch's
notes on CPU threading; Hugging Face Hub's documentation, "Environment variables".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemark.cache import cache_folder
from tunemark.doctor.diagnosis import Diagnosis, fine, minor, severe, unknown
from tunemark.doctor.known_faults import find_known_faults
from tunemark.doctor.machine import Machine
from tunemark.number_format import GIB, format_gib
from tunemark_worker import torch_build

# Seconds to import torch from a cold network disk.
_IMPORT_S = 180.0
# A store of long sweeps takes some MB, a dataset and weights some GiB.
_FULL_DISK_BYTES, _SMALL_DISK_BYTES = GIB, 10 * GIB
# Flags of /proc/cpuinfo, and what torch's kernels then should use, the best first.
_INSTRUCTIONS = (("avx512f", "AVX512"), ("avx2", "AVX2"))
# Variables that bind all threads of the process to the cores that they name, with which the harness's own placing of
# threads, and its number of them, does not hold.
_BINDING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PROC_BIND", "OMP_PLACES")
_GOMP_SOURCE = "https://github.com/pytorch/pytorch/issues/149422"
_OWN_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchBuild:
    """The torch of an interpreter, as `describe_build` says. facts: empty where it could not be asked, and why."""

    python: str
    facts: Mapping[str, Any]
    why: str = ""


def read_torch_build(python: str | None) -> TorchBuild:
    """Ask the torch of an interpreter; None is the harness's own. It takes as long as importing torch."""
    path = python or sys.executable
    program = Path(torch_build.__file__).read_text(encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [path, "-c", program], capture_output=True, text=True, timeout=_IMPORT_S, env=environment, errors="replace"
        )
        if done.returncode == 0:
            return TorchBuild(python=path, facts=json.loads(done.stdout.splitlines()[-1]))
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"it ended with code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        why = str(error)
    return TorchBuild(python=path, facts={}, why=f"{path} could not be asked for its torch: {why}")


def check_torch(machine: Machine, build: TorchBuild) -> Diagnosis:
    """The library of matrix products, and the processor's instructions that torch uses."""
    facts = build.facts
    if not facts:
        return unknown("torch", build.why)
    blas, capability = facts.get("blas"), facts.get("capability")
    evidence = (
        f"torch {facts.get('torch')}, BLAS {blas or 'unknown'}, oneDNN {'on' if facts.get('mkldnn') else 'off'}, "
    )
    evidence += f"kernels for {capability or 'unknown instructions'}"
    remedy = f"{build.python} -m pip install --force-reinstall torch"
    flags = set((machine.read("proc/cpuinfo") or "").split())
    best = next((name for flag, name in _INSTRUCTIONS if flag in flags), None)
    limit = machine.environment.get("ATEN_CPU_CAPABILITY")
    if best is not None and capability is not None and capability.upper() in ("DEFAULT", "NO AVX"):
        limited = f"unset ATEN_CPU_CAPABILITY, which is {limit}" if limit else remedy
        return severe("torch", f"{evidence}, while the processor has {best}", limited)
    if not facts.get("openmp", True):
        return severe("torch", f"{evidence}; it was built without OpenMP: its kernels use one thread", remedy)
    if blas in ("generic", "none") and not facts.get("mkldnn"):
        return severe("torch", f"{evidence}: matrix products without a tuned library", remedy)
    if best == "AVX512" and capability is not None and "AVX2" in capability.upper():
        limited = (
            f"unset ATEN_CPU_CAPABILITY, which is {limit}" if limit else "torch itself prefers AVX2 on some processors"
        )
        return minor("torch", f"{evidence}, while the processor has AVX512", limited)
    if capability is None:
        return unknown("torch", evidence)
    return fine("torch", evidence)


def check_known_faults(machine: Machine, build: TorchBuild, versions: Mapping[str, str | None]) -> list[Diagnosis]:
    """Versions with faults that others have reported. versions: of the packages of the interpreter that trains."""
    kernel = (machine.read("proc/sys/kernel/osrelease") or os.uname().release) if hasattr(os, "uname") else None
    every = {**versions, "linux": kernel}
    found = [
        Diagnosis(
            check="known faults",
            level=fault.level,
            evidence=f"{fault.package} {every[fault.package]}: {fault.words} ({fault.source})",
            remedy=fault.remedy,
        )
        for fault in find_known_faults(every, has_gpu=bool(build.facts.get("gpus")))
    ]
    known = ", ".join(f"{name} {version}" for name, version in every.items() if version)
    return found or [fine("known faults", f"none is listed here of {known}")]


def check_thread_binding(machine: Machine) -> Diagnosis:
    """Variables that bind threads to cores, against which the harness cannot place them."""
    given = {name: machine.environment[name] for name in _BINDING if machine.environment.get(name)}
    if "OMP_PROC_BIND" in given and given["OMP_PROC_BIND"].lower() == "false":
        del given["OMP_PROC_BIND"]
    if not given:
        return fine("thread binding", "no variable binds threads: the harness places them")
    words = ", ".join(f"{name}={value}" for name, value in given.items())
    if "GOMP_CPU_AFFINITY" in given:
        evidence = f"{words}: torch from pip then runs all its threads on one core ({_GOMP_SOURCE})"
        return severe("thread binding", evidence, f"unset {' '.join(given)}")
    return minor("thread binding", f"{words}: threads may share cores, whatever the harness gave each rank",
                 f"unset {' '.join(given)}")  # fmt: skip


def check_allocator(machine: Machine, build: TorchBuild) -> Diagnosis:
    """The allocator of a CPU job's memory."""
    loaded = machine.environment.get("LD_PRELOAD", "")
    own = next((name for name in _OWN_ALLOCATORS if name in loaded), None)
    if own is not None:
        return fine("allocator", f"{own}, by LD_PRELOAD: it is recorded with each run")
    tunables = machine.environment.get("GLIBC_TUNABLES")
    if tunables is not None:
        words = f"GLIBC_TUNABLES={tunables} is set, so the harness leaves it as it is"
        if "mmap_max=0" not in tunables and "mmap_threshold" not in tunables:
            return minor(
                "allocator", f"{words}: large blocks go back to the kernel after each step", "unset GLIBC_TUNABLES"
            )
        return fine("allocator", words)
    libc = str(build.facts.get("libc") or "")
    if not libc:
        return unknown("allocator", "which C library the interpreter has is not known")
    if libc.startswith("glibc"):
        return fine("allocator", f"{libc}, which the harness tells to keep freed blocks")
    return minor("allocator", f"{libc}: its allocator cannot be told to keep freed blocks",
                 "LD_PRELOAD a tcmalloc or jemalloc, and use the same for all that is compared")  # fmt: skip


def check_disk(machine: Machine, store: Path) -> Diagnosis:
    """Space where attempts are stored, and where datasets are cached."""
    found = []
    for name, folder in (("store", store), ("cache", cache_folder())):
        existing = next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), None)
        try:
            disk = machine.statvfs(existing) if existing is not None else None
        except OSError:
            disk = None
        if disk is not None and disk.f_blocks:
            found.append((disk.f_bavail * disk.f_frsize, name, folder))
    if not found:
        return unknown("disk", "how much space is left is not known")
    evidence = "; ".join(f"{format_gib(free)} GiB free for the {name} {folder}" for free, name, folder in found)
    free, name, _ = min(found, key=lambda each: each[0])
    remedy = "remove what is not needed, or choose another disk: " + (
        "--store FOLDER" if name == "store" else "TUNEMARK_CACHE=FOLDER"
    )
    if free < _FULL_DISK_BYTES:
        return severe("disk", evidence, remedy)
    return minor("disk", evidence, remedy) if free < _SMALL_DISK_BYTES else fine("disk", evidence)


def check_offline_readiness(machine: Machine) -> Diagnosis:
    """What is here of the hub's models and datasets, and downloads that were cut off."""
    environment = machine.environment
    home = environment.get("HF_HOME") or os.path.join(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(environment.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    is_offline = environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        names = sorted(path.name for path in hub.iterdir()) if hub.is_dir() else []
        cut = list(hub.glob("*/blobs/*.incomplete")) if names else []
    except OSError as error:
        return unknown("offline readiness", f"{hub} cannot be read: {error.strerror}")
    models, datasets = (sum(name.startswith(kind) for name in names) for kind in ("models--", "datasets--"))
    evidence = f"{hub} holds {models} models and {datasets} datasets of the hub"
    evidence += "; HF_HUB_OFFLINE is set: nothing else can be had" if is_offline else ""
    if cut:
        remedy = f"finish it where there is a network: hf download NAME; or remove {cut[0].parent.parent}"
        return minor("offline readiness", f"{evidence}; {len(cut)} downloads were cut off", remedy)
    if is_offline and not models and not datasets:
        return minor(
            "offline readiness",
            evidence,
            "unset HF_HUB_OFFLINE, or copy a cache here; built-in models and datasets need none",
        )
    return fine("offline readiness", f"{evidence}; built-in models and datasets need none")
