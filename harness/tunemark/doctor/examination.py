"""All checks of the machine: those of `tunemark doctor`, and those that every run makes before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunemark.doctor import gpu_checks, memory_checks, processor_checks, software_checks
from tunemark.doctor.diagnosis import Diagnosis, sort_diagnoses
from tunemark.doctor.machine import Machine
from tunemark.doctor.software_checks import TorchBuild

# Packages of the interpreter whose versions are looked up among known faults.
PACKAGES = ("torch", "transformers", "numpy", "accelerate")


def examine(machine: Machine, build: TorchBuild, versions: Mapping[str, str | None], store: Path) -> list[Diagnosis]:
    """Make every check, the worst first. build, versions: of the interpreter that trains. store: where attempts go."""
    seen = processor_checks.watch(machine)
    return sort_diagnoses(
        [
            processor_checks.check_load(machine, seen),
            processor_checks.check_stolen_time(machine, seen),
            processor_checks.check_governor(machine),
            processor_checks.check_clock_limit(machine),
            processor_checks.check_turbo(machine),
            processor_checks.check_heat(machine, seen),
            processor_checks.check_hyper_threads(machine),
            processor_checks.check_cpu_quota(machine, seen),
            processor_checks.check_clock_source(machine),
            memory_checks.check_memory(machine),
            memory_checks.check_swap(machine, seen),
            memory_checks.check_numa(machine),
            memory_checks.check_huge_pages(machine),
            memory_checks.check_shared_memory(machine),
            software_checks.check_allocator(machine, build),
            software_checks.check_torch(machine, build),
            software_checks.check_thread_binding(machine),
            *software_checks.check_known_faults(machine, build, versions),
            software_checks.check_disk(machine, store),
            software_checks.check_offline_readiness(machine),
            *gpu_checks.check_gpus(machine),
        ]
    )


def examine_for_run(machine: Machine, *, processes: int, threads: int) -> list[Diagnosis]:
    """What is severe for a run of some processes, among the checks that cost no time: none watches the machine, since a
    run records by itself how busy its cores were."""
    found = [
        processor_checks.check_governor(machine),
        processor_checks.check_clock_limit(machine),
        processor_checks.check_cpu_quota(machine, None, min(processes * threads, len(machine.cores))),
        memory_checks.check_memory(machine),
        software_checks.check_thread_binding(machine),
        *([memory_checks.check_shared_memory(machine)] if processes > 1 else []),
    ]
    return [each for each in found if each.level == "severe"]
