"""`tunemark plan`: every run of an experiment and what it costs, as a table to paste. Nothing is run."""

from __future__ import annotations

import argparse
import json as json_module
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any

from tunemark.experiment import SETTINGS, Experiment, Plan, Point, RunSpec, make_experiment, points, resolve_all
from tunemark.experiment.settings import BY_NAME, default_word
from tunemark.plugin import Catalog
from tunemark.units import gib, giga


def add_arguments(parser: argparse.ArgumentParser) -> None:
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    experiment = experiment_from(args)
    catalog = Catalog()
    found, away = points(experiment), []
    if any(strategy.startswith("auto") for strategy in experiment.strategy):
        from tunemark.predict.elsewhere import is_elsewhere  # not needed by plans that a person has laid out

        away = [point for point in found if is_elsewhere(point, catalog)]
    plans = resolve_all([point for point in found if all(point is not other for other in away)], catalog)
    for words in dict.fromkeys([*catalog.remarks(), *(note for plan in plans for note in plan.notes)]):
        print(words, file=sys.stderr)
    return print_resolved(plans, catalog, json=experiment.json, away=away)


def print_resolved(plans: Sequence[Plan], catalog: Catalog, *, json: bool, away: Sequence[Point] = ()) -> int:
    """Print plans, with a predicted layout for each whose strategy is a search, and searches for chips that are not
    here; returns the exit code."""
    if not any(plan.strategy.is_search for plan in plans) and not away:
        print_plans(plans, json=json)
        return 0
    from tunemark.cli.layouts import print_searches  # not needed by plans that a person has laid out

    return print_searches(plans, away, catalog, json=json)


def experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiment's file and a flag for every setting; a flag that is not given stays None."""
    parser.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT.toml", help="settings in a file; flags win over it"
    )
    for setting in SETTINGS:
        # Argparse formats help texts with %.
        words = f"{setting.help} (default: {default_word(setting)})".replace("%", "%%")
        if setting.choices:
            words += f"; one of: {', '.join(setting.choices)}"
        flags = [setting.flag, *(["-o"] if setting.name == "output" else [])]
        if setting.type is bool:
            # `--no-no-calibrate` would be nobody's idea of a flag.
            action: Any = "store_true" if setting.name.startswith("no_") else argparse.BooleanOptionalAction
            parser.add_argument(*flags, dest=setting.name, action=action, default=None, help=words)
        else:
            kind = {str: "NAME", int: "N", float: "X"}[setting.type]
            metavar = kind + (",..." if setting.is_axis else "")
            parser.add_argument(*flags, dest=setting.name, default=None, metavar=metavar, help=words)


def experiment_from(args: argparse.Namespace) -> Experiment:
    """The experiment that the parsed flags and their file describe."""
    return make_experiment({s.name: getattr(args, s.name) for s in SETTINGS}, args.experiment)


def print_plans(plans: Sequence[Plan], json: bool) -> None:
    """Print one JSON object a line, or a Markdown table under a line of what all runs share."""
    if json:
        for plan in plans:
            print(json_module.dumps(row(plan), allow_nan=False))
    else:
        print(_markdown(plans))


def row(plan: Plan) -> dict[str, Any]:
    accelerator = plan.accelerator
    return {
        "run_id": plan.run_id,
        **asdict(plan.spec),
        "tokenizer": plan.model.tokenizer.name if plan.model.tokenizer else None,
        "chip": accelerator.chip,
        "chips": accelerator.chips,
        "memory_bytes": accelerator.memory_bytes,
        "peak_flops": dict(accelerator.peak_flops),
        "oversubscribed": accelerator.oversubscribed,
        "is_present": accelerator.is_present,
        "is_simulated": accelerator.is_simulated,
        "accelerator_source": accelerator.source,
        "nodes": accelerator.nodes,
        "parts": accelerator.parts,
        "part_memory_bytes": accelerator.part_memory_bytes,
        "memory_floor_distributed_bytes": _spread(plan),
        "processes": plan.launch.processes,
        "threads": plan.launch.threads,
        "data_ranks": plan.data_ranks,
        "gradient_accumulation": plan.gradient_accumulation,
        "tokens_per_step": plan.tokens_per_step,
        "parameters": plan.parameters,
        "trainable_parameters": plan.trainable_parameters,
        "flops_per_token": plan.flops_per_token,
        "hardware_flops_per_token": plan.hardware_flops_per_token,
        "axes": [asdict(axis) for axis in plan.axes],
        "flops_per_token_full_attention": plan.flops_per_token_full_attention,
        "memory_floor_bytes": plan.memory_floor_bytes,
        "notes": list(plan.notes),
    }


_IDENTITY: dict[str, Callable[[Plan], str]] = {
    "model": lambda p: p.spec.model,
    "dataset": lambda p: p.spec.dataset,
    "tokenizer": lambda p: p.model.tokenizer.name if p.model.tokenizer else "none",
    "device": lambda p: p.spec.device,
    "size": lambda p: p.spec.size,
    "strategy": lambda p: p.spec.strategy,
    "precision": lambda p: p.spec.precision,
    "batching": lambda p: p.spec.batching,
}

_NUMBERS: dict[str, Callable[[Plan], str]] = {
    "sequence (tokens)": lambda p: str(p.spec.sequence),
    "micro batch (sequences)": lambda p: str(p.spec.micro_batch),
    "global batch (sequences)": lambda p: str(p.spec.global_batch),
    "accumulation (micro-batches)": lambda p: str(p.gradient_accumulation),
    "tokens per step (slots)": lambda p: f"{p.tokens_per_step:,}",
    "parameters": lambda p: f"{p.parameters:,}",
    "FLOPs per token (GFLOP, causal)": lambda p: giga(p.flops_per_token),
    "memory floor (GiB)": lambda p: gib(p.memory_floor_bytes),
}

# Of accelerators that are made of several memories, each of which a process can fill by itself.
_PARTS: dict[str, Callable[[Plan], str]] = {
    "chips": lambda p: f"{p.accelerator.chips} {p.accelerator.chip}" if p.accelerator.chips else "unknown",
    "nodes": lambda p: str(p.accelerator.nodes or "unknown"),
    "memories": lambda p: (
        f"{p.accelerator.parts} x {gib(p.accelerator.part_memory_bytes)} GiB"
        if p.accelerator.part_memory_bytes
        else "unknown"
    ),
    "floor in one memory": lambda p: _fit(p, p.memory_floor_bytes),
    "floor distributed": lambda p: _fit(p, _spread(p)),
}


def _spread(plan: Plan) -> int | None:
    """The memory floor in each part where parameters, gradients and optimizer states are divided over all."""
    parts = plan.accelerator.parts
    return -(-plan.memory_floor_bytes // parts) if parts else None


def _fit(plan: Plan, floor: int | None) -> str:
    there = plan.accelerator.part_memory_bytes
    if floor is None or there is None:
        return "unknown"
    return f"{gib(floor)} GiB: {'fits' if floor <= there else 'does not fit'}"


_SHOWN = {*_IDENTITY, "sequence", "micro_batch", "global_batch"}


def _markdown(plans: Sequence[Plan]) -> str:
    if not plans:
        return "no runs"
    columns = dict(_IDENTITY)
    # What differs from the default is part of a run's identity too.
    for name in (f.name for f in fields(RunSpec) if f.name not in _SHOWN):
        if any(getattr(p.spec, name) != BY_NAME[name].default for p in plans):
            columns[name] = lambda p, name=name: _word(getattr(p.spec, name), name)  # type: ignore[misc]  # default binds
    if any(p.accelerator.parts for p in plans):
        columns.update(_PARTS)
    shared = {name: read(plans[0]) for name, read in columns.items() if len({read(p) for p in plans}) == 1}
    varying = {name: read for name, read in columns.items() if name not in shared}
    lines = ["; ".join(f"{name} {value}" for name, value in shared.items()), ""] if shared else []
    lines.append(f"| run_id | {' | '.join([*varying, *_NUMBERS])} |")
    lines.append("|---|" + "---|" * len(varying) + "---:|" * len(_NUMBERS))
    for plan in plans:
        cells = [plan.run_id, *(read(plan) for read in (*varying.values(), *_NUMBERS.values()))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _word(value: object, name: str) -> str:
    if value is None:
        return str(BY_NAME[name].unset)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
