"""`tunemark predict`: what steps take in time and memory, by formulas alone. Nothing is run.

Every figure is a prediction with bounds; of a row that cannot be expressed the reason stands in its place.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunemark.cli.plan import experiment_arguments, experiment_from
from tunemark.errors import BadExperiment
from tunemark.experiment import SETTINGS, Plan, points, resolve_all
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.predict import Prediction
    from tunemark.predict.rows import Expressed, Inexpressible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark predict [EXPERIMENT.toml | --rows FILE.csv] [OPTIONS]"
    parser.add_argument("--rows", metavar="FILE.csv", help="models, devices and layouts, one a row, with a header")
    experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    return _rows(args) if args.rows is not None else _plans(args)


def _rows(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.predict.rows import express, read_rows

    given = [s.flag for s in SETTINGS if s.name != "json" and getattr(args, s.name) is not None]
    if args.experiment is not None or given:
        raise BadExperiment(
            what="rows and an experiment cannot be predicted together",
            why=f"--rows {args.rows}, and {args.experiment or given[0]}",
            next="leave one of them out",
        )
    rows = read_rows(args.rows)
    installed = Catalog().models()
    models = {m.pretrained.lower(): m.architecture for m in installed.values() if m.pretrained}
    models.update((name.lower(), model.architecture) for name, model in installed.items())
    found = [as_row(express(row, models)) for row in rows]
    failed = sum("reason" in row for row in found)
    _print(found, bool(args.json))
    if failed:
        print(f"{failed} of {len(found)} rows cannot be expressed", file=sys.stderr)
    return 0


def _plans(args: argparse.Namespace) -> int:
    """What each run of an experiment should take on this machine, or on what its devices know of others."""
    experiment = experiment_from(args)
    _print([_planned(plan) for plan in resolve_all(points(experiment), Catalog())], experiment.json)
    return 0


def _planned(plan: Plan) -> dict[str, Any]:
    from tunemark.predict import of_plan
    from tunemark.predict.calibration import expected
    from tunemark.predict.ground import ground_of

    spec, empty = plan.spec, dict.fromkeys(("step_time_s", "tokens_per_s_per_device", "memory_bytes"))
    facts = {"id": plan.run_id, "model": spec.model, "device": f"{spec.device}:{spec.size}", "strategy": spec.strategy}
    if plan.strategy.is_search:
        return {**facts, **empty, "reason": "strategy auto is predicted by `tunemark plan --strategy auto`"}
    found = of_plan(plan)
    if isinstance(found, str):
        return {**facts, **empty, "reason": found}
    work, layout = found
    try:
        ground = ground_of(plan, layout.ranks, None)
    except BadExperiment as error:
        return {**facts, **empty, "reason": " ".join(str(error).split())}
    assumptions = [ground.source, *ground.facts.assumptions]
    return {**facts, **figures(expected(work, layout, ground.facts, ground.mechanisms)), "assumptions": assumptions}


def as_row(one: Expressed | Inexpressible) -> dict[str, Any]:
    """The prediction of a row with its bounds, or its reason; null is unknown."""
    from tunemark.predict.rows import Inexpressible

    if isinstance(one, Inexpressible):
        empty = dict.fromkeys(("step_time_s", "tokens_per_s_per_device", "memory_bytes"))
        return {"id": one.id, **empty, "reason": one.reason}
    predicted = one.predict()
    return {"id": one.id, **figures(predicted), "strategy": one.layout.words(), "assumptions": list(one.assumptions)}


def figures(predicted: Prediction) -> dict[str, Any]:
    """What is predicted, with bounds of two standard deviations, in parts."""
    low, high = predicted.step_time_bounds_s
    least, most = predicted.memory_bounds_bytes
    tokens = predicted.tokens_per_step / predicted.ranks
    seconds, held = predicted.seconds, predicted.bytes
    return {
        "step_time_s": predicted.step_time_s,
        "step_time_low_s": low,
        "step_time_high_s": high,
        "tokens_per_s_per_device": predicted.tokens_per_s_per_device,
        "tokens_per_s_per_device_low": tokens / high,
        "tokens_per_s_per_device_high": tokens / low,
        "memory_bytes": predicted.memory_bytes,
        "memory_low_bytes": least,
        "memory_high_bytes": most,
        "seconds": {
            "compute": seconds.compute,
            "communication": seconds.communication,
            "bubble": seconds.bubble,
            "optimizer": seconds.optimizer,
            "data": seconds.data,
        },
        "bytes": {
            "parameters": held.parameters,
            "gradients": held.gradients,
            "optimizer": held.optimizer,
            "activations": held.activations,
            "buffers": held.buffers,
            "workspace": held.workspace,
        },
    }


def _print(found: Sequence[dict[str, Any]], is_json: bool) -> None:
    if is_json:
        for row in found:
            print(json.dumps(row, allow_nan=False))
        return
    lines = [
        "Predicted by formulas, nothing was run; in brackets, bounds of two standard deviations.",
        "",
        "| id | strategy | step time (s) | tokens/s per device (slots) | memory of the fullest (GB) |",
        "|---|---|---:|---:|---:|",
    ]
    for row in found:
        if "reason" in row:
            lines.append(f"| {_cell(row['id'])} | cannot be expressed: {_cell(row['reason'])} | | | |")
            continue
        step = f"{row['step_time_s']:.3g} [{row['step_time_low_s']:.3g}, {row['step_time_high_s']:.3g}]"
        rate = (
            f"{row['tokens_per_s_per_device']:,.0f} "
            f"[{row['tokens_per_s_per_device_low']:,.0f}, {row['tokens_per_s_per_device_high']:,.0f}]"
        )
        held = (
            f"{row['memory_bytes'] / 1e9:.3g} [{row['memory_low_bytes'] / 1e9:.3g}, "
            f"{row['memory_high_bytes'] / 1e9:.3g}]"
        )
        lines.append(f"| {_cell(row['id'])} | {row['strategy']} | {step} | {rate} | {held} |")
    print("\n".join(lines))


def _cell(words: str) -> str:
    return " ".join(words.replace("|", "\\|").split())
