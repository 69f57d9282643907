"""Plans as a Markdown table or as lines of JSON: what each run is, and what it costs."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any

from tunemark.cli.messages import print_json
from tunemark.cli.plan_details import PlanDetails
from tunemark.cli.terminal import print_result
from tunemark.experiment import Plan, RunSpec
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.fields import read_fields
from tunemark.markdown import markdown_table
from tunemark.number_format import format_gib, format_giga


def print_plans(plans: Sequence[Plan], details: PlanDetails, *, json: bool) -> None:
    """Print one JSON object per line, or a Markdown table below a line of the values that all runs share, and the
    details of the plans below it."""
    if json:
        for plan in plans:
            print_json(json_module.dumps({**plan_row(plan), **details.row(plan)}, allow_nan=False))
    else:
        print_result(_markdown(plans))
        if plans and (words := details.text(plans)):
            print_result(f"\n{words}")


def plan_row(plan: Plan) -> dict[str, Any]:
    accelerator = plan.accelerator
    return {
        "run_id": plan.run_id,
        **asdict(plan.spec),
        "tokenizer": plan.model.tokenizer.name if plan.model.tokenizer else None,
        **read_fields(accelerator, "chip", "chips", "memory_bytes"),
        "peak_flops": dict(accelerator.peak_flops),
        **read_fields(accelerator, "oversubscribed", "is_present", "is_simulated"),
        "accelerator_source": accelerator.source,
        **read_fields(accelerator, "nodes", "parts", "part_memory_bytes"),
        "memory_floor_distributed_bytes": _floor_per_memory(plan),
        **read_fields(plan.launch, "processes", "threads"),
        **read_fields(plan, "data_ranks", "gradient_accumulation", "tokens_per_step", "parameters"),
        **read_fields(plan, "trainable_parameters", "flops_per_token", "hardware_flops_per_token"),
        "axes": [asdict(axis) for axis in plan.axes],
        **read_fields(plan, "flops_per_token_full_attention", "memory_floor_bytes"),
        "notes": list(plan.notes),
    }


def _tokens_per_step(plan: Plan) -> str:
    most = f"{plan.tokens_per_step:,}"
    return f"at most {most}" if plan.spec.batching == "bucket" else most


_IDENTITY_COLUMNS: dict[str, Callable[[Plan], str]] = {
    "model": lambda p: p.spec.model,
    "dataset": lambda p: p.spec.dataset,
    "tokenizer": lambda p: p.model.tokenizer.name if p.model.tokenizer else "none",
    **{name: attrgetter(f"spec.{name}") for name in ("device", "size", "strategy", "precision", "batching")},
}

_COST_COLUMNS: dict[str, Callable[[Plan], str]] = {
    "sequence (tokens)": lambda p: str(p.spec.sequence),
    "micro batch (sequences)": lambda p: str(p.spec.micro_batch),
    "global batch (sequences)": lambda p: str(p.spec.global_batch),
    "accumulation (micro-batches)": lambda p: str(p.gradient_accumulation),
    "tokens per step (slots)": _tokens_per_step,
    "parameters": lambda p: f"{p.parameters:,}",
    "FLOPs per token (GFLOP, causal)": lambda p: format_giga(p.flops_per_token),
    "memory floor, unsharded (GiB)": lambda p: format_gib(p.memory_floor_bytes),
}

# For accelerators with several memories, each of which one process can fill.
_MEMORY_COLUMNS: dict[str, Callable[[Plan], str]] = {
    "chips": lambda p: f"{p.accelerator.chips} {p.accelerator.chip}" if p.accelerator.chips else "unknown",
    "nodes": lambda p: str(p.accelerator.nodes or "unknown"),
    "memories": lambda p: (
        f"{p.accelerator.parts} x {format_gib(p.accelerator.part_memory_bytes)} GiB"
        if p.accelerator.part_memory_bytes
        else "unknown"
    ),
    "floor in one memory": lambda p: _format_floor(p, p.memory_floor_bytes),
    "floor distributed": lambda p: _format_floor(p, _floor_per_memory(p)),
}


def _floor_per_memory(plan: Plan) -> int | None:
    """Bytes in each memory if parameters, gradients and optimizer states are sharded over all of them."""
    parts = plan.accelerator.parts
    return -(-plan.memory_floor_bytes // parts) if parts else None


def _format_floor(plan: Plan, floor: int | None) -> str:
    capacity = plan.accelerator.part_memory_bytes
    if floor is None or capacity is None:
        return "unknown"
    return f"{format_gib(floor)} GiB: {'fits' if floor <= capacity else 'does not fit'}"


_FIXED_COLUMNS = {*_IDENTITY_COLUMNS, "sequence", "micro_batch", "global_batch"}


def _markdown(plans: Sequence[Plan]) -> str:
    if not plans:
        return "no runs"
    columns = dict(_IDENTITY_COLUMNS)
    # Settings that differ from the default identify a run too.
    for name in (f.name for f in fields(RunSpec) if f.name not in _FIXED_COLUMNS):
        if any(getattr(p.spec, name) != SETTINGS_BY_NAME[name].default for p in plans):
            columns[name] = lambda p, name=name: _format_value(p, name)  # type: ignore[misc]  # default binds
    if any(p.accelerator.parts for p in plans):
        columns.update(_MEMORY_COLUMNS)
    shared = {name: read(plans[0]) for name, read in columns.items() if len({read(p) for p in plans}) == 1}
    varying = {name: read for name, read in columns.items() if name not in shared}
    lines = ["; ".join(f"{name} {value}" for name, value in shared.items()), ""] if shared else []
    rows = ([plan.run_id, *(read(plan) for read in (varying | _COST_COLUMNS).values())] for plan in plans)
    table = markdown_table(["run_id", *varying, *_COST_COLUMNS], rows, "<" * (1 + len(varying)) + ">")
    return "\n".join([*lines, table])


def _format_value(plan: Plan, name: str) -> str:
    value: object = getattr(plan.spec, name)
    if value is None:
        return str(SETTINGS_BY_NAME[name].unset)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
