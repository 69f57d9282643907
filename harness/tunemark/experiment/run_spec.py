"""What identifies a run, and the run_id that is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunemark.experiment.settings import SETTINGS, JobSettings, MeasurementSettings
from tunemark_worker.training_settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class RunSpec(MeasurementSettings, TrainingSettings, JobSettings):
    """The settings that identify a run, under their names, all defaults resolved."""


def run_id(spec: RunSpec) -> str:
    """A hash of the spec's values: 16 hexadecimal digits."""
    return hash_spec(asdict(spec))


_UNHASHED = {each.name: each.unhashed for each in SETTINGS if each.unhashed is not None}


def hash_spec(values: Mapping[str, Any]) -> str:
    """The run_id of a spec's values, as a store keeps them; ValueError if one is no finite number."""
    hashed = {name: value for name, value in values.items() if name not in _UNHASHED or value != _UNHASHED[name]}
    canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
