"""`tunemark predict`: what steps take in time and memory, by formulas alone. Nothing is run.

Every figure is a prediction with bounds; of a row that cannot be expressed the reason stands in its place.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.predict import Prediction
    from tunemark.predict.rows import Expressed, Inexpressible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark predict --rows FILE.csv [--json]"
    parser.add_argument("--rows", metavar="FILE.csv", help="models, devices and layouts, one a row, with a header")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.predict.rows import express, read_rows

    if args.rows is None:
        raise BadExperiment(what="nothing to predict", next="--rows FILE.csv")
    rows = read_rows(args.rows)
    models = {name.lower(): model.architecture for name, model in Catalog().models().items()}
    found = [express(row, models) for row in rows]
    if args.json:
        for one in found:
            print(json.dumps(as_row(one), allow_nan=False))
    else:
        print(_markdown(found))
    failed = sum("reason" in as_row(one) for one in found)
    if failed:
        print(f"{failed} of {len(found)} rows cannot be expressed", file=sys.stderr)
    return 0


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


def _markdown(found: Sequence[Expressed | Inexpressible]) -> str:
    lines = [
        "Predicted by formulas, nothing was run; in brackets, bounds of two standard deviations.",
        "",
        "| id | strategy | step time (s) | tokens/s per device (slots) | memory of the fullest (GB) |",
        "|---|---|---:|---:|---:|",
    ]
    for one in found:
        row = as_row(one)
        if "reason" in row:
            lines.append(f"| {_cell(row['id'])} | cannot be expressed: {_cell(row['reason'])} | | | |")
            continue
        step = f"{row['step_time_s']:.3g} [{row['step_time_low_s']:.3g}, {row['step_time_high_s']:.3g}]"
        rate = (
            f"{row['tokens_per_s_per_device']:,.3g} "
            f"[{row['tokens_per_s_per_device_low']:,.3g}, {row['tokens_per_s_per_device_high']:,.3g}]"
        )
        held = (
            f"{row['memory_bytes'] / 1e9:.3g} [{row['memory_low_bytes'] / 1e9:.3g}, "
            f"{row['memory_high_bytes'] / 1e9:.3g}]"
        )
        lines.append(f"| {_cell(row['id'])} | {row['strategy']} | {step} | {rate} | {held} |")
    return "\n".join(lines)


def _cell(words: str) -> str:
    return " ".join(words.replace("|", "\\|").split())
