"""Which runs can be held against each other: those that agree in every field that decides how fast a run is.

The fields are those of a run's identity, its data and its processor. Whatever is added to the identity is one of them
by itself: an unknown difference refuses, it is never overlooked. Versions and the state of a host are no such fields:
they are what a comparison is often about, and are named beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.results.result import Identity, Result

# Follow from other fields, or say how long and how often was measured, not what. Two hosts of one kind differ by some
# pages in the memory that is left. What is done beside the timed part is not timed; the documents that are held out for
# it are as long as any others.
_NO_FIELDS = frozenset(
    (
        "run_id", "gradient_accumulation", "data_ranks", "flops_per_token", "flops_per_token_full_attention",
        "hardware_flops_per_token", "learnable", "peak_flops", "peak_flops_source", "parts", "memory_bytes", "epochs",
        "steps_requested", "warmup_requested", "budget_s", "target_interval", "window_s",
        "evaluate", "sample", "save",
    )
)  # fmt: skip
_NAMES = {"strategy_requested": "strategy"}


def _processor(result: Result) -> object:
    """Of the host that trained, which need not be the one that launched."""
    host, worker = result.environment.get("host") or {}, result.environment.get("worker") or {}
    # Unknown processors are alike on one host alone.
    known = worker.get("processor") or host.get("processor")
    return known or f"unknown, of host {worker.get('node') or host.get('name', 'unknown')}"


def _asked(result: Result, name: str) -> object:
    """A setting as it was asked for: what a search has chosen instead is part of what it is compared for."""
    return getattr(result, name) if result.search is None else result.search.requested.get(name, getattr(result, name))


FIELDS: Mapping[str, Callable[[Result], Any]] = {
    **{
        _NAMES.get(name, name): lambda r, name=name: getattr(r, name)  # type: ignore[misc]  # the default binds
        for name in Identity.__struct_fields__
        if name not in _NO_FIELDS
    },
    "micro_batch": lambda r: _asked(r, "micro_batch"),
    "checkpointing": lambda r: _asked(r, "checkpointing"),
    "data_sha256": lambda r: r.data_sha256,
    "processor": _processor,
}

# A simulator's figures say nothing of speed, and no flag makes them.
NEVER_DESPITE = "simulated"

# What follows from an axis, and may differ with it.
_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "strategy": ("processes", "threads", "parameters", "trainable_parameters"),
    "size": ("chips", "processes", "threads", "parameters", "trainable_parameters"),
    "device": ("size", "chip", "chips", "processor", "processes", "threads"),
    "chip": ("chips", "processor"),
    "model": ("parameters", "trainable_parameters", "data_sha256"),
    "method": ("parameters", "trainable_parameters"),
    "dataset": ("data_sha256",),
    "train_on": ("data_sha256",),
}


def field(name: str) -> str:
    """A field's name as it is written here; `BadExperiment` where there is none such."""
    known = _NAMES.get(name, name).replace("-", "_")
    if known not in FIELDS:
        raise BadExperiment(what=f"no field named {name!r}", next=did_you_mean(name, FIELDS))
    return known


def freed(by: Iterable[str], despite: Iterable[str]) -> frozenset[str]:
    """The fields that may differ: the axes with what follows from them, and those that are overlooked."""
    axes = [field(name) for name in by]
    overlooked = [field(name) for name in despite]
    if NEVER_DESPITE in (*axes, *overlooked):
        raise BadExperiment(
            what="simulated runs cannot be compared with measured ones",
            why="a simulator's figures say nothing of how fast anything is",
            next="compare simulated runs with simulated ones",
        )
    return frozenset(overlooked).union(axes, *(_FOLLOWS.get(axis, ()) for axis in axes))


def axis_of(names: Collection[str]) -> str | None:
    """The one axis that explains why these fields differ; None where there is none."""
    return next((axis for axis in _FOLLOWS if axis in names and set(names) <= {axis, *_FOLLOWS[axis]}), None)


def key(result: Result, free: Collection[str]) -> tuple[object, ...]:
    """What alike runs have in common."""
    return tuple(read(result) for name, read in FIELDS.items() if name not in free)


def differing(results: Sequence[Result], fields: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """The fields in which some runs differ, each with its values in order."""
    values = {name: tuple(FIELDS[name](r) for r in results) for name in fields}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def unlike(a: Result, b: Result, free: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """The fields that refuse a comparison of two runs."""
    return differing([a, b], [name for name in FIELDS if name not in free])


def nearest(result: Result, others: Sequence[Result], free: Collection[str]) -> tuple[Result, dict[str, Any]]:
    """The run that differs in the fewest fields, and these."""
    found = min(others, key=lambda other: len(unlike(result, other, free)))
    return found, unlike(result, found, free)


def words(fields: Mapping[str, Sequence[Any]]) -> str:
    """Fields with their values, to be read: global_batch (4, 8)."""
    return "; ".join(f"{name} ({', '.join(map(_word, values))})" for name, values in fields.items())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "unknown" if value is None or value == "" else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
