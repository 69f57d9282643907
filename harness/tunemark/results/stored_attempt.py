"""An attempt as it is stored: how it ended, its records and what the parent process knew of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunemark.results.measurement import Measurement
from tunemark.results.result import Status
from tunemark.results.seal import SealCheck
from tunemark.results.telemetry import Telemetry

_UNKNOWN_SEAL = SealCheck(state="unsealed")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAttempt:
    """One process life of a run: how it ended, its records, and what the parent process knew (`facts`).

    launched_s: on the clock of rank 0's instants; None where it is not known to be the same clock. telemetry: the
    samples of the device's monitor, None where there was no monitor. seal: whether its files are what they were.
    """

    name: str
    status: Status
    reason: str
    evidence: str
    measurement: Measurement
    launched_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    telemetry: Telemetry | None = None
    seal: SealCheck = _UNKNOWN_SEAL
