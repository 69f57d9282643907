"""Which runs are comparable: those that agree in every field that decides how fast a run is.

The fields are those of a run's identity, its data and its processor. Any field added to the identity is compared by
default, so a new kind of difference refuses a comparison rather than being overlooked. Versions and host state are not
among them: a comparison is often about these, so it reports them instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.settings import SETTINGS
from tunemark.redaction import hide_paths
from tunemark.results.ratio import attempt_rates
from tunemark.results.result import Result, RunIdentity

Outcome = Literal["baseline", "faster", "slower", "no difference shown", "no interval", "takes no part"]

# Not compared: facts that follow from others. Free memory differs by some pages between equal hosts.
_DERIVED_FACTS = (
    "attention_requested",
    "run_id", "gradient_accumulation", "data_ranks", "flops_per_token", "flops_per_token_full_attention",
    "hardware_flops_per_token", "learnable", "peak_flops", "peak_flops_source", "parts", "memory_bytes",
)  # fmt: skip
# Nor are settings of how long and how often was measured. Evaluation, sampling and saving are not timed; held-out
# documents are as long as others.
_NOT_COMPARED = frozenset((*_DERIVED_FACTS, *(each.stored for each in SETTINGS if not each.is_compared)))
_NAMES = {"strategy_requested": "strategy"}


def _processor(result: Result) -> object:
    """The processor of the host that trained, which may differ from the host that launched."""
    host, worker = result.environment.get("host") or {}, result.environment.get("worker") or {}
    # Unknown processors count as equal only on the same host.
    known = worker.get("processor") or host.get("processor")
    return known or f"unknown, of host {worker.get('node') or host.get('name', 'unknown')}"


def _attention(result: Result) -> object:
    """How attention was computed, where that was requested or the environment's doing; else it is the model's own, and
    equal."""
    if result.attention_requested != "auto":
        return result.attention_requested
    return result.attention if result.attention_reason else "the model's own"


def _requested(result: Result, name: str) -> object:
    """A setting as requested: what a search chose instead is part of what is being compared."""
    return getattr(result, name) if result.search is None else result.search.requested.get(name, getattr(result, name))


COMPARED_FIELDS: Mapping[str, Callable[[Result], Any]] = {
    **{_NAMES.get(name, name): attrgetter(name) for name in RunIdentity.__struct_fields__ if name not in _NOT_COMPARED},
    "micro_batch": lambda r: _requested(r, "micro_batch"),
    "checkpointing": lambda r: _requested(r, "checkpointing"),
    "data_sha256": lambda r: r.data_sha256,
    "attention": _attention,
    "processor": _processor,
}

# The figures of a simulated device say nothing about speed, so no flag may overlook this field.
NEVER_OVERLOOKED = "simulated"

# Fields that follow from an axis, and may differ with it.
_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "strategy": ("processes", "threads", "parameters", "trainable_parameters"),
    "size": ("chips", "processes", "threads", "parameters", "trainable_parameters"),
    "device": ("size", "chip", "chips", "processor", "processes", "threads"),
    "chip": ("chips", "processor"),
    "python": ("attention",),
    # Each lives in an interpreter of its own.
    "trainer": ("python", "attention"),
    "model": ("parameters", "trainable_parameters", "data_sha256", "attention"),
    "method": ("parameters", "trainable_parameters"),
    "dataset": ("data_sha256",),
    "train_on": ("data_sha256",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    """A run in a comparison, by its label. obstacle: why it is not compared; empty if it is."""

    label: str
    result: Result

    @property
    def obstacle(self) -> str:
        return exclusion_reason(self.result)


def exclusion_reason(result: Result) -> str:
    """Why a run's rate cannot be compared; empty if it can."""
    if result.status != "ok":
        return f"{result.status}: no rate of a whole run"
    if result.verdict == "invalid":
        rules = ", ".join(f.rule for f in result.findings if f.severity == "invalid")
        return f"invalid: {rules or 'its figures are no measurement'}"
    if result.breakdown:
        return "a breakdown waits for every part of a step: its rate is not the run's"
    if not attempt_rates(result):
        return "no attempt has a rate"
    return ""


def parse_field(name: str) -> str:
    """Normalize a field's name; raises `BadExperiment` if there is no such field."""
    known = _NAMES.get(name, name).replace("-", "_")
    if known not in COMPARED_FIELDS:
        raise BadExperiment(what=f"no field named {name!r}", next=did_you_mean(name, COMPARED_FIELDS))
    return known


def find_free_fields(by: Iterable[str], despite: Iterable[str]) -> frozenset[str]:
    """The fields that may differ: the axes with the fields that follow from them, and those of `despite`."""
    axes = [parse_field(name) for name in by]
    ignored = [parse_field(name) for name in despite]
    if NEVER_OVERLOOKED in (*axes, *ignored):
        raise BadExperiment(
            what="simulated runs cannot be compared with measured ones",
            why="a simulator's figures say nothing of how fast anything is",
            next="compare simulated runs with simulated ones",
        )
    return frozenset(ignored).union(axes, *(_FOLLOWS.get(axis, ()) for axis in axes))


def find_axis(names: Collection[str]) -> str | None:
    """The axis that explains why these fields differ; None if there is none."""
    return next((axis for axis in _FOLLOWS if axis in names and set(names) <= {axis, *_FOLLOWS[axis]}), None)


def comparison_key(result: Result, free: Collection[str]) -> tuple[object, ...]:
    """The values that comparable runs share, for grouping."""
    return tuple(_as_shared(read(result)) for name, read in COMPARED_FIELDS.items() if name not in free)


def group_runs(results: Iterable[Result], free: Collection[str]) -> dict[tuple[object, ...], list[Result]]:
    """Comparable runs by their key, in order."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(comparison_key(result, free), []).append(result)
    return groups


def find_differences(results: Sequence[Result], fields: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """The fields in which some of the runs differ, each with the runs' values in order."""
    values = {name: tuple(COMPARED_FIELDS[name](r) for r in results) for name in fields}
    return {name: found for name, found in values.items() if len(set(map(_as_shared, found))) > 1}


def _as_shared(value: object) -> object:
    """The value as a report for others has it, so that its runs can be compared with those of a store."""
    return hide_paths(value) if isinstance(value, str) else value if isinstance(value, Hashable) else repr(value)


def differing_settings(a: Result, b: Result, free: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """The fields that make two runs incomparable."""
    return find_differences([a, b], [name for name in COMPARED_FIELDS if name not in free])


def find_nearest(result: Result, others: Sequence[Result], free: Collection[str]) -> tuple[Result, dict[str, Any]]:
    """The run that differs in the fewest fields, and those fields."""
    found = min(others, key=lambda other: len(differing_settings(result, other, free)))
    return found, differing_settings(result, found, free)


def format_fields(fields: Mapping[str, Sequence[Any]]) -> str:
    """Format fields with their values for people: global_batch (4, 8)."""
    return "; ".join(f"{name} ({', '.join(map(_format_value, values))})" for name, values in fields.items())


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "unknown" if value is None or value == "" else str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= 80 else text[:77] + "..."
