"""What was measured of a machine, and the cost model's constants that follow from it.

Peaks, shares and costs come from kernels and collectives. Whole steps of small models then correct what closed formulas
of large matrices leave out: a share of every kind of work, and what each mechanism of parallelism adds to a step. The
spread of what is left over is the uncertainty of a prediction. Fitted as a maximum a posteriori estimate: every
constant stays near what its own kernel measured unless the steps disagree (Gelman et al. 2013, "Bayesian Data
Analysis", section 4.1).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tunemark.cache import cache_folder
from tunemark.predict import analytic, machine
from tunemark.predict import layout as layouts
from tunemark.predict.analytic import predict
from tunemark.predict.layout import Layout, Workload
from tunemark.predict.machine import DeviceFacts, Efficiency
from tunemark.predict.prediction import Prediction

SCHEMA = 1
# A prediction is never claimed to be nearer than this: two runs of the same differ by as much.
LEAST_RESIDUAL = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a calibration holds for. processes, threads: of the job, which share the machine. torch: version of the
    interpreter that trains; empty where it is not known. formulas: digest of those that were fitted, of which the
    constants are."""

    device: str
    chip: str
    processes: int
    threads: int
    torch: str
    allocator: str = ""
    formulas: str = ""

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """What one kind of parallelism, or selective recomputation, truly costs. communication: of the predicted exposed
    seconds, a factor. unit_s: added for every unit of its work: a layer of a micro-batch, or of a step for `ddp`, a
    layer's pass or scatter for `fsdp`, a micro-batch of a stage for `pp`."""

    communication: float = 1.0
    unit_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One whole step that was measured, and what the fitted model makes of it."""

    name: str
    measured_s: float
    predicted_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The facts of a machine as its ranks see it, fitted to measurements. residual: of the logarithm of a step, one
    standard deviation over the probes. seconds: that measuring took. kernels: records, as they were measured."""

    fingerprint: Fingerprint
    facts: DeviceFacts
    mechanisms: dict[str, Mechanism]
    probes: tuple[Probe, ...]
    made_utc: str
    seconds: float
    kernels: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    schema: int = SCHEMA


def expected(
    work: Workload, layout: Layout, device: DeviceFacts, mechanisms: Mapping[str, Mechanism] | None = None
) -> Prediction:
    """The prediction, with what was found of each mechanism on this machine."""
    found = predict(work, layout, device)
    units = units_of(work, layout)
    if not mechanisms or not units:
        return found
    known = {name: mechanisms.get(name, Mechanism()) for name in units}
    more_s = {name: known[name].unit_s * count for name, count in units.items()}
    again_s = more_s.pop(SELECTIVE, 0.0)
    sent = {name: found.communicated_bytes.get(_KINDS[name], 0.0) for name in more_s}
    total = sum(sent.values())
    shares = {name: sent[name] / total if total else 1.0 / len(sent) for name in more_s}
    factor = sum(shares[name] * known[name].communication for name in more_s)
    seconds = replace(
        found.seconds,
        compute=found.seconds.compute + again_s,
        communication=found.seconds.communication * factor + sum(more_s.values()),
    )
    return replace(found, seconds=seconds)


# By what communicated bytes are told apart.
_KINDS = {"ddp": "data", "fsdp": "data", "tp": "tensor", "pp": "pipeline"}
# Torch looks at every operation, to keep or to leave what it gave, beside what is computed again.
SELECTIVE = "selective"


def units_of(work: Workload, layout: Layout) -> dict[str, float]:
    """Of each mechanism in a layout, how often it does its work in a step of the rank that does most."""
    layers = math.ceil(work.architecture.num_hidden_layers / layout.pipeline)
    accumulation = work.global_batch // (layout.data * layout.micro_batch)
    found: dict[str, float] = {}
    if layout.recompute == SELECTIVE:
        found[SELECTIVE] = float(layers * accumulation)
    if layout.zero == 3 and layout.shard > 1:
        # Both passes of each micro-batch, and the scatter of what all have added up.
        found["fsdp"] = (layers + 1.0) * (2.0 * accumulation + 1.0)
    if layout.data > layout.shard or (layout.data > 1 and layout.zero == 0):
        found["ddp"] = layers + 1.0
    if layout.tensor > 1:
        found["tp"] = float(layers * accumulation)
    if layout.pipeline > 1:
        found["pp"] = float(accumulation * layout.virtual)
    return found


def folder() -> Path:
    """Where calibrations are kept."""
    return cache_folder() / "calibration"


def store(calibration: Calibration, where: Path | None = None) -> Path:
    """Keep it under its fingerprint; an older one of the same is replaced."""
    target = (where or folder()) / f"{calibration.fingerprint.key}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_text(json.dumps(asdict(calibration), indent=1), encoding="utf-8")
    os.replace(part, target)
    return target


def find(fingerprint: Fingerprint, where: Path | None = None) -> Calibration | None:
    """The calibration of that very machine and software; None where there is none, or it is of another version."""
    try:
        raw = json.loads(((where or folder()) / f"{fingerprint.key}.json").read_text(encoding="utf-8"))
        if raw.get("schema") != SCHEMA:
            return None
        facts = dict(raw["facts"])
        facts["efficiency"] = Efficiency(**facts["efficiency"])
        facts["assumptions"] = tuple(facts.get("assumptions", ()))
        return Calibration(
            fingerprint=Fingerprint(**raw["fingerprint"]),
            facts=DeviceFacts(**facts),
            mechanisms={name: Mechanism(**each) for name, each in raw["mechanisms"].items()},
            probes=tuple(Probe(**each) for each in raw["probes"]),
            made_utc=str(raw["made_utc"]),
            seconds=float(raw["seconds"]),
            kernels=tuple(raw["kernels"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@functools.cache
def formulas() -> str:
    """The digest of the cost model's source."""
    digest = hashlib.sha256()
    for module in (analytic, layouts, machine):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:12]


def torch_version(python: str | None) -> str:
    """The version of the interpreter's torch by its metadata, without importing it; empty where nothing says it."""
    if python is None:
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            return ""
    found = sorted(Path(python).parent.parent.glob("lib*/python*/site-packages/torch-*.dist-info"))
    return re.sub(r"^torch-|\.dist-info$", "", found[0].name) if found else ""
