"""What identifies a run, and the run_id that is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunemark.experiment.settings import JobSettings, MeasurementSettings
from tunemark_worker.training_settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class RunSpec(MeasurementSettings, TrainingSettings, JobSettings):
    """The settings that identify a run, under their names, all defaults resolved."""


def run_id(spec: RunSpec) -> str:
    """A hash of the spec's values: 16 hexadecimal digits."""
    return hash_spec(asdict(spec))


def hash_spec(values: Mapping[str, Any]) -> str:
    """The run_id of a spec's values, as a store keeps them; ValueError if one is no finite number."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
