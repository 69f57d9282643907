"""Calibrations of the predictor against a machine: the fitted constants, where they are stored, predicting with them.

Peaks, efficiencies and costs come from measured kernels and collectives. Whole steps of small models then correct what
closed formulas of large matrices leave out: a factor for every kind of work, and what each mechanism of parallelism
adds to a step. The spread of the residuals is the uncertainty of a prediction. The fit is a maximum a posteriori
estimate: a constant stays near what its own kernel measured unless the steps disagree (Gelman et al. 2013, "Bayesian
Data Analysis", section 4.1).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tunemark.atomic_write import write_atomically
from tunemark.cache import cache_folder
from tunemark.plugin.hardware import DeviceFacts, Efficiency
from tunemark.predict.cost_model import predict
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.prediction import Prediction

SCHEMA = 1
# The modules whose formulas the constants of a calibration were fitted with.
FORMULA_MODULES = (
    "tunemark.physics.flops",
    "tunemark.physics.parameters",
    "tunemark.physics.traced_counts",
    "tunemark.plugin.hardware",
    "tunemark.predict.assumption_list",
    "tunemark.predict.attention_costs",
    "tunemark.predict.calibration",
    "tunemark.predict.communication_costs",
    "tunemark.predict.cost_model",
    "tunemark.predict.hardware_rates",
    "tunemark.predict.layer_costs",
    "tunemark.predict.layout",
    "tunemark.predict.matrix_products",
    "tunemark.predict.memory_model",
    "tunemark.predict.prediction",
    "tunemark.predict.prediction_bounds",
    "tunemark.predict.rank_shares",
    "tunemark.predict.worker_step_costs",
)
# Smallest residual that is claimed for a prediction: two identical runs differ by as much.
MIN_RESIDUAL = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationFingerprint:
    """What a calibration is valid for. processes, threads: of the job, which share the machine. torch: its version in
    the interpreter that trains; empty if unknown. formulas: digest of the cost model whose constants were fitted."""

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
class ParallelismCost:
    """Measured cost of one kind of parallelism, or of selective recomputation. communication: factor on the predicted
    exposed seconds of communication. unit_s: seconds added for every unit of its work: a layer of a micro-batch, or of
    a step for "data", a layer's pass or scatter for "shard", a micro-batch of a stage for "pipeline"."""

    communication: float = 1.0
    unit_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """One measured whole step, and what the fitted model predicts for it."""

    name: str
    measured_s: float
    predicted_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Facts of a machine as one rank sees it, fitted to measurements. seconds: that measuring took. kernels: records of
    the measured kernels, unchanged. facts.residual: standard deviation over the probes of a step time's logarithm."""

    fingerprint: CalibrationFingerprint
    facts: DeviceFacts
    mechanisms: dict[str, ParallelismCost]
    probes: tuple[ProbeResult, ...]
    made_utc: str
    seconds: float
    kernels: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    schema: int = SCHEMA


def predict_calibrated(
    work: Workload, layout: RankLayout, device: DeviceFacts, mechanisms: Mapping[str, ParallelismCost] | None = None
) -> Prediction:
    """`predict`, corrected by the measured cost of each mechanism on this machine."""
    found = predict(work, layout, device)
    units = count_mechanism_units(work, layout)
    if not mechanisms or not units:
        return found
    known = {name: mechanisms.get(name, ParallelismCost()) for name in units}
    more_s = {name: known[name].unit_s * count for name, count in units.items()}
    again_s = more_s.pop(SELECTIVE, 0.0)
    sent = {name: found.communicated_bytes.get(_TRAFFIC_KINDS[name], 0.0) for name in more_s}
    total = sum(sent.values())
    shares = {name: sent[name] / total if total else 1.0 / len(sent) for name in more_s}
    factor = sum(shares[name] * known[name].communication for name in more_s)
    seconds = replace(
        found.seconds,
        compute=found.seconds.compute + again_s,
        communication=found.seconds.communication * factor + sum(more_s.values()),
    )
    return replace(found, seconds=seconds)


# Key of `Prediction.communicated_bytes` by mechanism.
_TRAFFIC_KINDS = {"data": "data", "shard": "data", "tensor": "tensor", "pipeline": "pipeline"}
# Selective recomputation costs more than what it computes again: torch decides at every operation whether to keep its
# output.
SELECTIVE = "selective"


def count_mechanism_units(work: Workload, layout: RankLayout) -> dict[str, float]:
    """Units of work (`ParallelismCost.unit_s`) of each mechanism (a `MeshDegree`, or selective recomputation) in a
    layout, in a step of the rank that has most."""
    layers = math.ceil(work.architecture.num_hidden_layers / layout.pipeline)
    accumulation = work.global_batch // (layout.data * layout.micro_batch)
    found: dict[str, float] = {}
    if layout.recompute == SELECTIVE:
        found[SELECTIVE] = float(layers * accumulation)
    if layout.zero == 3 and layout.shard > 1:
        # Gathers in both passes of each micro-batch, and one scatter of the summed gradients.
        found["shard"] = (layers + 1.0) * (2.0 * accumulation + 1.0)
    if layout.data > layout.shard or (layout.data > 1 and layout.zero == 0):
        found["data"] = layers + 1.0
    if layout.tensor > 1:
        found["tensor"] = float(layers * accumulation)
    if layout.pipeline > 1:
        found["pipeline"] = float(accumulation * layout.virtual)
    return found


def calibration_folder() -> Path:
    """The folder of stored calibrations."""
    return cache_folder() / "calibration"


def store_calibration(calibration: Calibration, where: Path | None = None) -> Path:
    """Store a calibration under its fingerprint, in place of an older one; returns its file. where: the folder."""
    target = (where or calibration_folder()) / f"{calibration.fingerprint.key}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(asdict(calibration), indent=1))
    return target


def find_calibration(fingerprint: CalibrationFingerprint, where: Path | None = None) -> Calibration | None:
    """The stored calibration of exactly this machine and software; None where there is none or its schema differs."""
    try:
        raw = json.loads(((where or calibration_folder()) / f"{fingerprint.key}.json").read_text(encoding="utf-8"))
        if raw.get("schema") != SCHEMA:
            return None
        facts = dict(raw["facts"])
        facts["efficiency"] = Efficiency(**facts["efficiency"])
        facts["assumptions"] = tuple(facts.get("assumptions", ()))
        return Calibration(
            fingerprint=CalibrationFingerprint(**raw["fingerprint"]),
            facts=DeviceFacts(**facts),
            mechanisms={name: ParallelismCost(**each) for name, each in raw["mechanisms"].items()},
            probes=tuple(ProbeResult(**each) for each in raw["probes"]),
            made_utc=str(raw["made_utc"]),
            seconds=float(raw["seconds"]),
            kernels=tuple(raw["kernels"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@functools.cache
def digest_cost_model() -> str:
    """Digest of the source code of all formulas that a prediction takes."""
    digest = hashlib.sha256()
    for name in FORMULA_MODULES:
        digest.update(Path(str(importlib.import_module(name).__file__)).read_bytes())
    return digest.hexdigest()[:12]


def find_torch_version(python: str | None) -> str:
    """The version of torch in an interpreter by its package metadata, without importing it; empty if unknown."""
    if python is None:
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            return ""
    found = sorted(Path(python).parent.parent.glob("lib*/python*/site-packages/torch-*.dist-info"))
    return re.sub(r"^torch-|\.dist-info$", "", found[0].name) if found else ""
