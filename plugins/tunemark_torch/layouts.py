"""Which layouts of data, tensor and pipeline parallelism can be, told from numbers alone: no torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.plugin.descriptors import Architecture, Axis

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb", "zbv")
# Schedules in which a process holds several stages.
SEVERAL = ("interleaved", "zb", "zbv")
_BOOLEANS = ("true", "false")


def one(degree: int) -> int:
    """All ranks of the axis see the same batch."""
    return 1


def stages_of_ranks(axis: Axis) -> int:
    """A pipeline is full where there are as many micro-batches as processes."""
    return axis.degree


def refusal(axes: Sequence[Axis], a: Architecture, settings: Mapping[str, Any]) -> str | None:
    """Why this layout cannot train such a model; None where it can."""
    by_name = {axis.strategy: axis for axis in axes}
    names = list(by_name)
    if {"ddp", "fsdp"} <= set(names) and names.index("ddp") > names.index("fsdp"):
        return "copies go around shards: write ddp before fsdp"
    for axis in axes:
        why = _refusals[axis.strategy](axis, a, settings)
        if why:
            return why
    return None


def _data(axis: Axis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    return _not_boolean(axis, "reshard")


def _tensor(axis: Axis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    degree = axis.degree
    if wrong := _not_boolean(axis, "sequence_parallel"):
        return wrong
    if settings["method"] != "full":
        return "tp cuts matrices by their names and knows no adapters: ddp, fsdp or pp, or --method full"
    if a.num_hidden_layers == 0:
        return "tp cuts layers, and it has none"
    for what, number in (("attention heads", a.num_attention_heads), ("key and value heads", a.num_key_value_heads)):
        if number % degree:
            return f"tp:{degree} cannot divide {number} {what}: a degree that divides them"
    if a.intermediate_size % degree:
        return f"tp:{degree} cannot divide an MLP of {a.intermediate_size}: a degree that divides it"
    if axis.options.get("sequence_parallel") == "true" and settings["sequence"] % degree:
        return f"tp:{degree} cannot divide a sequence of {settings['sequence']}: --sequence with a multiple of {degree}"
    return None


def _pipeline(axis: Axis, a: Architecture, settings: Mapping[str, Any]) -> str | None:
    schedule = axis.options.get("schedule", "1f1b")
    if schedule not in SCHEDULES:
        return f"no schedule {schedule!r}: schedule= one of {', '.join(SCHEDULES)}"
    several = schedule in SEVERAL
    if "virtual" in axis.options and (not several or not axis.options["virtual"].isdecimal()):
        return f"virtual=N is a number of stages in each process, of the schedules {', '.join(SEVERAL)}"
    each = int(axis.options.get("virtual", "2")) if several else 1
    if each < 1 or (schedule == "zbv" and each != 2):
        return f"{schedule} with {each} stages in each process: zbv has exactly 2, the others at least 1"
    stages = axis.degree * each
    if stages > a.num_hidden_layers:
        return f"{a.num_hidden_layers} layers do not fill {stages} stages: a smaller degree" + (
            ", or fewer virtual ones" if several else ""
        )
    micro_batches = settings["gradient_accumulation"]
    fewest = {"gpipe": 1, "zbv": 2 * axis.degree}.get(schedule, axis.degree)
    unit = "micro-batches (global batch / micro-batch / data ranks)"
    if micro_batches < fewest:
        return f"{schedule} needs at least {fewest} {unit}, there are {micro_batches}: a larger --global-batch, a " + (
            "smaller --micro-batch, or schedule=gpipe"
        )
    # torch's condition: rounds of as many micro-batches each.
    rounds = max(1, micro_batches // axis.degree)
    if schedule in ("interleaved", "zb") and micro_batches % rounds:
        return (
            f"{schedule} takes {micro_batches} {unit} in {rounds} rounds, which must be equal: another "
            f"--global-batch, best a multiple of {axis.degree} micro-batches"
        )
    return None


def _not_boolean(axis: Axis, option: str) -> str | None:
    value = axis.options.get(option, "true")
    return None if value in _BOOLEANS else f"{option} is true or false, not {value!r}"


_refusals = {"ddp": _data, "fsdp": _data, "tp": _tensor, "pp": _pipeline}
