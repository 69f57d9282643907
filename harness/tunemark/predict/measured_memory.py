"""Predictions of memory, corrected by what runs of the same kind held on this machine.

The formulas count tensors. What a process holds is more: the interpreter, its libraries, and what the allocator keeps.
`tunemark fit` measures several micro-batches; a line through what they held over what was predicted is kept for plans
that differ from them in the batch and the sequence alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.experiment.plan import Plan
from tunemark.predict.calibration import calibration_folder
from tunemark.predict.search_problem import make_calibration_fingerprint
from tunemark_worker.training_settings import TRAINING_SETTINGS

# History of the schema: 1, first form.
SCHEMA = 1
# Settings that the formulas follow well, or on which memory does not depend.
_FREE = ("sequence", "micro_batch", "global_batch", "learning_rate", "schedule", "clip_norm", "seed")
# The least standard deviation of the logarithm: two cells always lie on a line.
_LEAST_RESIDUAL = 0.02


class MeasuredMemory(msgspec.Struct, frozen=True, kw_only=True):
    """held = base_bytes + factor x predicted. residual: standard deviation of the logarithm of held over this. cells:
    how many it rests on."""

    base_bytes: float
    factor: float
    residual: float
    cells: int
    made_utc: str
    schema: int = SCHEMA

    def correct(self, predicted_bytes: float) -> float:
        return self.base_bytes + self.factor * predicted_bytes


def fit_measured_memory(cells: Sequence[tuple[float, float]]) -> MeasuredMemory | None:
    """The line through (predicted, held) bytes; None without a cell. With one size the difference is a constant."""
    if not cells:
        return None
    n = len(cells)
    x, y = (math.fsum(column) / n for column in zip(*cells, strict=True))
    spread = math.fsum((a - x) ** 2 for a, _ in cells)
    factor = math.fsum((a - x) * (b - y) for a, b in cells) / spread if spread else 1.0
    if factor <= 0:
        factor = 1.0
    base = y - factor * x
    apart = [math.log(held / max(base + factor * predicted, 1.0)) for predicted, held in cells]
    residual = max(_LEAST_RESIDUAL, math.sqrt(math.fsum(each**2 for each in apart) / n))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return MeasuredMemory(base_bytes=base, factor=factor, residual=residual, cells=n, made_utc=now)


def store_measured_memory(plan: Plan, found: MeasuredMemory, where: Path | None = None) -> Path:
    """Keep a line for plans like this one, in place of an earlier one. where: the folder of calibrations."""
    path = _path(plan, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(found))
    return path


def find_measured_memory(plan: Plan, where: Path | None = None) -> MeasuredMemory | None:
    """The line that was measured for plans like this one; None where there is none."""
    try:
        found = msgspec.json.decode(_path(plan, where).read_bytes(), type=MeasuredMemory)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.schema == SCHEMA else None


def digest_memory_kind(plan: Plan) -> str:
    """A digest of all that plans share for which one line holds."""
    spec = asdict(plan.spec)
    kept = [spec[each.name] for each in TRAINING_SETTINGS if each.name not in _FREE]
    parts = [make_calibration_fingerprint(plan, plan.launch).key, spec["model"], spec["strategy"], *kept]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _path(plan: Plan, where: Path | None) -> Path:
    return (where or calibration_folder()) / f"memory-{digest_memory_kind(plan)}.json"
