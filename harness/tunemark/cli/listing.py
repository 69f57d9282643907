"""`tunemark list`: what is installed, and what could not be used."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.run_arguments import RUNS_HELP
from tunemark.cli.run_listing import print_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment, TunemarkError, did_you_mean
from tunemark.experiment.experiment import list_built_in_experiments
from tunemark.experiment.trainer_environments import find_environment
from tunemark.exporting import find_missing_modules
from tunemark.fields import read_fields
from tunemark.markdown import markdown_table
from tunemark.number_format import format_gib, format_giga, format_significant
from tunemark.physics import count_parameters, train_flops_per_token
from tunemark.plugin import Catalog, Device, Exporter, Model, ReadsToolOutput, ToolStatus, Trainer

_KINDS = ("devices", "models", "datasets", "strategies", "trainers", "launchers", "exporters", "plugins", "experiments")

EXAMPLES = (
    ("tunemark list models", "names, parameters and FLOPs per token"),
    ("tunemark list experiments", "what `tunemark run NAME` measures, and the files to copy"),
    ("tunemark list runs --where 'model=mistral*' --sort=-tokens_per_s", "the runs in runs/, the fastest first"),
    ("tunemark list devices --backend moai --from saved.txt", "the accelerators in a saved output of moreh-smi"),
)

# Sequence length for which FLOPs per token are listed, unless the model's maximum is shorter.
_SEQUENCE = 2048

_ACCELERATOR_FACTS = ("name", "chip", "chips", "memory_bytes", "peak_flops", "source", "parts", "part_memory_bytes",
                      "nodes", "is_simulated")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=f"what to list: {', '.join(_KINDS)}, runs")
    parser.add_argument("folder", nargs="?", metavar="DIR", help=f"of `list runs`: {RUNS_HELP} (default: runs)")
    words = "of `list runs`: only those whose field has this value, which may have * and ?"
    parser.add_argument("--where", action="append", default=[], metavar="FIELD=VALUE", help=words)
    parser.add_argument("--sort", metavar="FIELD", help="of `list runs`: smallest first; --sort=-FIELD: largest first")
    parser.add_argument("--json", action="store_true", help="print one JSON array, with --from one object")
    parser.add_argument("--backend", metavar="DEVICE", help="list this device only")
    words = "read saved output of the status tool of --backend; - is standard input"
    parser.add_argument("--from", dest="source", metavar="FILE", help=words)


def execute(args: argparse.Namespace) -> int:
    if args.kind == "runs" and args.backend is None and args.source is None:
        return print_runs(args.folder or "runs", Catalog(), where=args.where, sort=args.sort, as_json=args.json)
    if args.kind not in (*_KINDS, "runs"):
        raise BadExperiment(what=f"cannot list {args.kind!r}", next=did_you_mean(args.kind, (*_KINDS, "runs")))
    for flag, value in (("DIR", args.folder), ("--where", args.where or None), ("--sort", args.sort)):
        if value is not None:
            raise BadExperiment(what=f"{flag} does not apply to {args.kind}", next="use it with `list runs`")
    for flag, value in (("--backend", args.backend), ("--from", args.source)):
        if value is not None and args.kind != "devices":
            raise BadExperiment(what=f"{flag} does not apply to {args.kind}", next="use it with `list devices`")
    if args.source is not None:
        return print_tool_output(args.backend, args.source, Catalog(), as_json=args.json)
    return print_kind(args.kind, Catalog(), as_json=args.json, backend=args.backend)


def print_kind(kind: str, catalog: Catalog, *, as_json: bool, backend: str | None = None) -> int:
    """Print everything of a kind to standard output, and the plugins that could not be used to standard error."""
    rows = [_device(catalog.device(backend))] if backend else make_rows(kind, catalog)
    if as_json:
        print_json(json.dumps(rows, indent=1))
    else:
        print_result(_table(kind, rows))
        if kind == "models":
            for source in catalog.model_sources().values():
                print(f"\n{source.name}:REFERENCE is {source.description}")
    for words in catalog.remarks():
        print_message(words)
    return 0


def print_tool_output(backend: str | None, source: str, catalog: Catalog, *, as_json: bool) -> int:
    """Print the accelerators in a saved output of a backend's status tool."""
    readers = {name: device for name, device in catalog.devices().items() if isinstance(device, ReadsToolOutput)}
    if backend is None:
        raise BadExperiment(what="--from needs --backend", next=f"--backend with one of: {', '.join(sorted(readers))}")
    device = catalog.device(backend)
    if not isinstance(device, ReadsToolOutput):
        # The first line of the method's docstring names the tools.
        known = [
            f"{name} ({(inspect.getdoc(each.read_output) or '').partition('.')[0]})" for name, each in readers.items()
        ]
        raise BadExperiment(
            what=f"device {backend!r} reads no status tool's output",
            why=f"{source} was given with --from; outputs are read by: {', '.join(sorted(known)) or 'no plugin'}",
            next=f"--backend with one of: {', '.join(sorted(readers)) or 'nothing that is installed'}; to say what a "
            "machine is made of, --chip and --chips",
        )
    reading = device.read_output(_read_source(source))
    print_json(json.dumps(asdict(reading), indent=1, ensure_ascii=False) if as_json else _format_reading(reading))
    return 0


def make_rows(kind: str, catalog: Catalog) -> list[dict[str, Any]]:
    """One object per device, model, ... of that kind, sorted by name."""
    if kind == "devices":
        return [_device(device) for _, device in sorted(catalog.devices().items())]
    if kind == "models":
        return [_model(model) for _, model in sorted(catalog.models().items())]
    if kind == "plugins":
        return _plugins(catalog)
    if kind == "exporters":
        return [_exporter(exporter) for _, exporter in sorted(catalog.exporters().items())]
    if kind == "experiments":
        return [_experiment(name, path) for name, path in list_built_in_experiments().items()]
    found: Mapping[str, Any] = getattr(catalog, kind)()
    own = {
        "datasets": ("needs_tokenizer", "roles"),
        "strategies": ("distributed",),
        "trainers": ("package", "license", "requires", "honours", "absent"),
    }.get(kind, ())
    rows = [{"name": name, **_facts(each, "description", "options", *own)} for name, each in sorted(found.items())]
    for row in rows if kind == "launchers" else ():
        row["elsewhere"] = found[row["name"]].is_remote
    for row in rows if kind == "trainers" else ():
        row.update(_trainer_place(found[row["name"]]))
    return rows


def _trainer_place(trainer: Trainer) -> dict[str, Any]:
    """Where a trainer runs: in an interpreter of its own, or in this one; and what to do where it cannot."""
    if trainer.absent:
        return {"python": None, "package_version": None, "missing": []}
    own = find_environment(trainer)
    if own is not None:
        return {"python": own.python, "package_version": own.versions.get(trainer.package), "missing": []}
    missing = [name for name in trainer.requires if importlib.util.find_spec(name) is None] if trainer.runtime else []
    version = None
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version(trainer.package or "tunemark")
    return {"python": None if missing else sys.executable, "package_version": version, "missing": missing}


def _trainer_cells(row: dict[str, Any]) -> list[str]:
    where = "this interpreter" if row["python"] == sys.executable else str(row["python"])
    if row["missing"]:
        where = f"not installed: `tunemark trainers install {row['name']}`"
    if row["absent"]:
        where = f"none: {row['absent']}"
    own = [row["name"], row["description"], row["package_version"] or "", row["license"], where]
    return [*own, _option_cells(row)[2]]


def _facts(found: object, *names: str) -> dict[str, Any]:
    """Attributes by name, as types that JSON has."""
    values = read_fields(found, *names).items()
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values}


def _model(model: Model) -> dict[str, Any]:
    sequence = min(_SEQUENCE, model.architecture.max_position_embeddings)
    return {
        **read_fields(model, "name", "description"),
        "parameters": count_parameters(model.architecture).total,
        "flops_per_token": train_flops_per_token(model.architecture, sequence),
        "sequence": sequence,
        "tokenizer": model.tokenizer.name if model.tokenizer else None,
        "is_runnable": model.runtime is not None,
        **read_fields(model, "pretrained", "source"),
        "architecture": model.architecture.as_dict(),
    }


def _device(device: Device) -> dict[str, Any]:
    row: dict[str, Any] = {"name": device.name, "present": False, "default_size": None, "sizes": [], "failure": None}
    try:
        sizes = list(device.accelerators())
        row.update(sizes=[_facts(a, *_ACCELERATOR_FACTS) for a in sizes], present=bool(sizes))
        if sizes:
            with suppress(TunemarkError):  # not every device has a default size
                row["default_size"] = device.default_size()
    # Third-party code may raise anything; the other devices are still listed.
    except Exception as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    return row


def _read_source(source: str) -> str:
    """The text of a file or of standard input; a recorded terminal session may hold any bytes."""
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise BadExperiment(
            what=f"cannot read {source!r}", why=str(error.strerror), next="--from FILE, or -"
        ) from error
    return content.decode("utf-8-sig", errors="replace")


def _format_reading(reading: ToolStatus) -> str:
    versions = f"{reading.version_current or 'unknown'}, latest {reading.version_latest or 'unknown'}"
    tables = [f"{reading.tool}, version {versions}", _table("states", [asdict(d) for d in reading.devices])]
    if reading.processes:
        tables.append(_table("processes", [asdict(p) for p in reading.processes]))
    return "\n\n".join(tables)


def _plugins(catalog: Catalog) -> list[dict[str, Any]]:
    catalog.offers()  # calls the hooks, which puts unusable answers into `broken`
    rows: list[dict[str, Any]] = [
        {
            **_facts(p, "name", "module", "distribution", "version"),
            "interface": p.interface or None,
            "seconds": round(sum(catalog.seconds.get(p.name, {}).values()), 4),
            "slow": catalog.slow(p.name) or None,
            "broken": "; ".join(b.reason for b in catalog.broken if b.plugin == p.name) or None,
        }
        for p in catalog.plugins
    ]
    listed = {row["name"] for row in rows}
    unknown = dict.fromkeys(("module", "version", "interface", "seconds"))
    rows += [
        {"name": b.plugin, "distribution": b.distribution, **unknown, "slow": catalog.slow(b.plugin) or None,
         "broken": b.reason}
        for b in catalog.broken
        if b.plugin not in listed
    ]  # fmt: skip
    return rows


def _exporter(exporter: Exporter) -> dict[str, Any]:
    return {**asdict(exporter), "missing": find_missing_modules(exporter)}


def _experiment(name: str, path: Path) -> dict[str, Any]:
    """A built-in experiment. description: the first sentence of its file's comment."""
    text = path.read_text(encoding="utf-8")
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(str.strip, text.splitlines())
                       if line.startswith("#"))  # fmt: skip
    sentence = re.split(r"(?<=[.?])\s", comment)[0]
    return {"name": name, "description": sentence, "path": str(path), "toml": text}


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"no {kind}"
    columns, cells = _CELLS[kind]
    # A slash reads better in a terminal than an escaped bar.
    return markdown_table(columns, ([cell.replace("|", "/") for cell in cells(row)] for row in rows), "<")


def _device_cells(row: dict[str, Any]) -> list[str]:
    sizes = row["sizes"]
    memory = sizes[-1]["memory_bytes"] if sizes else None
    present = " ".join((row["failure"] or "").split()) or ("yes" if row["present"] else "no")
    names = [s["name"] for s in sizes]
    shown = ", ".join(names if len(names) <= 8 else [*names[:4], "...", names[-1]])
    chip = sizes[0]["chip"] if sizes else ""
    return [row["name"], present, shown, str(row["default_size"] or ""), chip, format_gib(memory) if memory else ""]


def _option_cells(row: dict[str, Any]) -> list[str]:
    return [row["name"], row["description"], "; ".join(f"{k}: {v}" for k, v in row["options"].items())]


def _state_cells(row: dict[str, Any]) -> list[str]:
    default = {True: "yes", False: "no", None: ""}[row["default"]]
    used = [_cell(row["memory_used_mib"]), _format_percent(row["memory_used_fraction"])]
    total, utilization = _cell(row["memory_total_mib"]), _format_percent(row["utilization"])
    return [str(row["id"]), default, _cell(row["name"]), _cell(row["flavor"]), *used, total, utilization]


def _process_cells(row: dict[str, Any]) -> list[str]:
    return [_cell(row[key]) for key in ("device", "job_id", "pid", "command", "memory_mib")]


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _format_percent(fraction: float | None) -> str:
    return "" if fraction is None else format_significant(100 * fraction, 3)


_CELLS: dict[str, Any] = {
    "devices": (("device", "present", "sizes", "default size", "chip", "memory of the largest (GiB)"), _device_cells),
    "models": (
        ("model", "parameters", "FLOPs per token (GFLOP, causal)", "at sequence (tokens)", "tokenizer", "description"),
        lambda r: [
            r["name"],
            f"{r['parameters']:,}",
            format_giga(r["flops_per_token"]),
            str(r["sequence"]),
            r["tokenizer"] or "",
            r["description"],
        ],
    ),
    "datasets": (("dataset", "description", "options"), _option_cells),
    "strategies": (("strategy", "description", "options"), _option_cells),
    "trainers": (("trainer", "description", "version", "license", "interpreter", "options"), _trainer_cells),
    "launchers": (("launcher", "description", "options"), _option_cells),
    "states": (
        ("id", "default", "name", "flavor", "memory used (MiB)", "memory used (%)", "memory (MiB)", "utilization (%)"),
        _state_cells,
    ),
    "processes": (("device", "job", "pid", "command", "memory (MiB)"), _process_cells),
    "exporters": (
        ("exporter", "description", "-o is", "installed"),
        lambda r: [
            r["name"],
            r["description"],
            r["destination"],
            f"no: pip install 'tunemark[{r['extra']}]' ({r['cost']})" if r["missing"] else "yes",
        ],
    ),
    "experiments": (
        ("experiment", "description", "file"),
        lambda r: [r["name"], r["description"], r["path"]],
    ),
    "plugins": (
        ("plugin", "module", "distribution", "version", "remark"),
        lambda r: [
            r["name"],
            *(str(r[key] or "") for key in ("module", "distribution", "version")),
            "; ".join(" ".join(r[key].split()) for key in ("broken", "slow") if r[key]),
        ],
    ),
}
