"""What exporters say of themselves, and the runs that they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Exporter:
    """A place to which finished runs are copied: a tracker's folder, a file of another format.

    export: "module:callable" (Sequence[ExportedRun], Path) -> Sequence[str], which writes to the destination and
    returns what to say of it, a line each. It may raise `TunemarkError`. destination: what the path is, such as
    "a folder". modules: names of those that must be importable. extra: of tunemark, which installs them. cost: in a few
    words, what that installs.
    """

    name: str
    export: str
    description: str
    destination: str
    modules: tuple[str, ...] = ()
    extra: str = ""
    cost: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedWindow:
    """A window of one attempt, at whose end the device had finished. steps: done at its end. end_s: seconds since the
    first such instant. step_time_s: per step. tokens_per_s: content tokens of the whole job, None where an earlier
    report kept only some windows. is_timed: whether the attempt's rate counts it."""

    attempt: str
    steps: int
    end_s: float
    step_time_s: float
    tokens_per_s: float | None
    is_timed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedRun:
    """A finished run. row: its line of runs.jsonl, as JSON values. windows: of all its attempts, empty where the
    store's records are not at hand."""

    run_id: str
    name: str
    row: Mapping[str, Any]
    windows: Sequence[ExportedWindow]
