"""`tunemark list`: what is installed, and what could not be used."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.physics import parameters, train_flops_per_token
from tunemark.plugin import Accelerator, Catalog, Device, Model
from tunemark.units import gib, giga

_KINDS = ("devices", "models", "datasets", "strategies", "plugins")

# Where a model's FLOPs per token are stated, unless it takes less.
_SEQUENCE = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=f"what to list: {', '.join(_KINDS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def execute(args: argparse.Namespace) -> int:
    if args.kind not in _KINDS:
        raise BadExperiment(what=f"cannot list {args.kind!r}", next=did_you_mean(args.kind, _KINDS))
    return show(args.kind, Catalog(), as_json=args.json)


def show(kind: str, catalog: Catalog, *, as_json: bool) -> int:
    """Print everything of a kind on standard output, and on standard error the plugins that could not be used."""
    rows = rows_of(kind, catalog)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print(_table(kind, rows))
    for broken in catalog.broken:
        print(f"plugin {broken.plugin!r} ({broken.distribution}) is not used: {broken.reason}", file=sys.stderr)
    return 0


def rows_of(kind: str, catalog: Catalog) -> list[dict[str, Any]]:
    """One object for each thing of a kind, in order of name."""
    if kind == "devices":
        return [_device(device) for _, device in sorted(catalog.devices().items())]
    if kind == "models":
        return [_model(model) for _, model in sorted(catalog.models().items())]
    if kind == "datasets":
        return [
            {
                "name": name,
                "description": d.description,
                "options": dict(d.options),
                "needs_tokenizer": d.needs_tokenizer,
                "roles": list(d.roles),
            }
            for name, d in sorted(catalog.datasets().items())
        ]
    if kind == "strategies":
        return [
            {"name": name, "description": s.description, "options": dict(s.options), "distributed": s.distributed}
            for name, s in sorted(catalog.strategies().items())
        ]
    return _plugins(catalog)


def _model(model: Model) -> dict[str, Any]:
    sequence = min(_SEQUENCE, model.architecture.max_position_embeddings)
    return {
        "name": model.name,
        "description": model.description,
        "parameters": parameters(model.architecture).total,
        "flops_per_token": train_flops_per_token(model.architecture, sequence),
        "sequence": sequence,
        "tokenizer": model.tokenizer.name,
        "pretrained": model.pretrained,
        "source": model.source,
        "architecture": asdict(model.architecture),
    }


def _device(device: Device) -> dict[str, Any]:
    row: dict[str, Any] = {"name": device.name, "present": False, "default_size": None, "sizes": [], "failure": None}
    try:
        sizes = list(device.accelerators())
        row.update(sizes=[_accelerator(a) for a in sizes], default_size=device.default_size() if sizes else None)
        row["present"] = bool(sizes)
    # A stranger's device is on the other side; the others are still listed.
    except Exception as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    return row


def _accelerator(accelerator: Accelerator) -> dict[str, Any]:
    return {
        "name": accelerator.name,
        "chip": accelerator.chip,
        "chips": accelerator.chips,
        "memory_bytes": accelerator.memory_bytes,
        "peak_flops": dict(accelerator.peak_flops),
        "source": accelerator.source,
    }


def _plugins(catalog: Catalog) -> list[dict[str, Any]]:
    for ask in (catalog.devices, catalog.models, catalog.datasets, catalog.strategies):
        ask()  # an answer that cannot be used is found out by asking
    rows: list[dict[str, Any]] = [
        {
            "name": p.name,
            "module": p.module,
            "distribution": p.distribution,
            "version": p.version,
            "broken": "; ".join(b.reason for b in catalog.broken if b.plugin == p.name) or None,
        }
        for p in catalog.plugins
    ]
    known = {row["name"] for row in rows}
    rows += [
        {"name": b.plugin, "module": None, "distribution": b.distribution, "version": None, "broken": b.reason}
        for b in catalog.broken
        if b.plugin not in known
    ]
    return rows


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"no {kind}"
    columns, cells = _CELLS[kind]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(each.replace('|', '/') for each in cells(row))} |" for row in rows]
    return "\n".join(lines)


def _device_cells(row: dict[str, Any]) -> list[str]:
    sizes = row["sizes"]
    memory = sizes[-1]["memory_bytes"] if sizes else None
    present = row["failure"] or ("yes" if row["present"] else "no")
    names = [s["name"] for s in sizes]
    shown = ", ".join(names if len(names) <= 8 else [*names[:4], "...", names[-1]])
    chip = sizes[0]["chip"] if sizes else ""
    return [row["name"], present, shown, str(row["default_size"] or ""), chip, gib(memory) if memory else ""]


def _option_cells(row: dict[str, Any]) -> list[str]:
    return [row["name"], row["description"], "; ".join(f"{k}: {v}" for k, v in row["options"].items())]


_CELLS: dict[str, Any] = {
    "devices": (("device", "present", "sizes", "default size", "chip", "memory of the largest (GiB)"), _device_cells),
    "models": (
        ("model", "parameters", "FLOPs per token (GFLOP, causal)", "at sequence (tokens)", "tokenizer", "description"),
        lambda r: [
            r["name"],
            f"{r['parameters']:,}",
            giga(r["flops_per_token"]),
            str(r["sequence"]),
            r["tokenizer"],
            r["description"],
        ],
    ),
    "datasets": (("dataset", "description", "options"), _option_cells),
    "strategies": (("strategy", "description", "options"), _option_cells),
    "plugins": (
        ("plugin", "module", "distribution", "version", "broken"),
        lambda r: [r["name"], *(str(r[key] or "") for key in ("module", "distribution", "version", "broken"))],
    ),
}
