"""The environment in which a run's attempts ran: versions, host, allocator, cores, load. Unknown is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.results.result import Result
from tunemark.results.telemetry import mean_of_known

# The host facts that `tunemark.launch.host_facts` records; the processor is a field of the comparison itself.
_HOST_FACTS = (
    "name", "platform", "cpus", "memory_bytes", "governor", "clock_min_hz", "clock_max_hz", "turbo", "smt",
    "huge_pages", "numa_balancing",
)  # fmt: skip

_HOST_TITLES = tuple((f"host {name}", name) for name in _HOST_FACTS)


def environment_facts(result: Result) -> dict[str, Any]:
    """Facts by name, of the last attempt; measured load is the mean of the attempts that have it."""
    environment = result.environment
    worker, host = _as_mapping(environment.get("worker")), _as_mapping(environment.get("host"))
    interpreter, device = _as_mapping(environment.get("interpreter")), _as_mapping(worker.get("device"))
    found: dict[str, Any] = {
        "python version": worker.get("python") or interpreter.get("python"),
        "torch": worker.get("torch") or interpreter.get("torch"),
        "transformers": worker.get("transformers") or interpreter.get("transformers"),
        "code": environment.get("code_sha256"),
        "interpreter": interpreter.get("path"),
    }
    # The state of the launching host says nothing about another host that trained.
    node = worker.get("node") or host.get("name")
    if node != host.get("name"):
        host = {"name": node, "platform": worker.get("platform")}
    found |= {title: host.get(name) for title, name in _HOST_TITLES}
    allocator = worker.get("allocator")
    if isinstance(allocator, Mapping):
        allocator = " ".join(f"{name}={value}" for name, value in sorted(allocator.items())) or "as the system has it"
    found["allocator"] = allocator
    affinity = worker.get("affinity")
    found["cores"] = tuple(affinity) if isinstance(affinity, list | tuple) else affinity
    found |= {f"device {name}": value for name, value in sorted(device.items())}
    found["load of others"] = mean_of_known([row.others_load for row in result.each_attempt])
    found["minor faults per step"] = mean_of_known([row.minor_faults_per_step for row in result.each_attempt])
    # Known if the vendor's library was sampled during the job.
    found["device clock"], found["throttled"] = result.clock_hz, result.throttled_fraction
    return found


_VARYING_FACTS = ("load of others", "minor faults per step", "device clock", "throttled")
"""Facts that always differ slightly between two runs."""


def differing_facts(results: Sequence[Result]) -> dict[str, tuple[Any, ...]]:
    """The facts that are known of every run and differ, each with the runs' values in order; not what always varies."""
    facts = [environment_facts(result) for result in results]
    names = dict.fromkeys(name for each in facts for name in each if name not in _VARYING_FACTS)
    values = {name: tuple(each.get(name) for each in facts) for name in names}
    return {n: v for n, v in values.items() if None not in v and any(value != v[0] for value in v)}


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
