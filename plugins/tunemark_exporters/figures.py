"""A run as flat names and values, under the names that report.csv and runs.jsonl have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tunemark.plugin import ExportedRun, ExportedWindow
from tunemark.results.result import RunIdentity

Scalar = str | int | float | bool
# Of a run: neither a setting nor a figure, or tables of their own.
_OTHER = ("environment", "search", "each_attempt", "findings", "strategy_selected", "completion", "telemetry_reasons")


def list_settings(run: ExportedRun) -> dict[str, Scalar]:
    """What identifies the run; unknown values are left out."""
    return {
        name: run.row[name]
        for name in RunIdentity.__struct_fields__
        if isinstance(run.row.get(name), (str, int, float, bool))
    }


def list_figures(run: ExportedRun) -> dict[str, float]:
    """What was measured, as numbers: an estimate with its bounds as `tokens_per_s`, `tokens_per_s_low` and so on."""
    return {name: value for name, value in _list_results(run).items() if not isinstance(value, (str, bool))}


def list_window_figures(window: ExportedWindow) -> dict[str, float]:
    """The figures of a window that are known."""
    figures = {"tokens_per_s": window.tokens_per_s, "step_time_s": window.step_time_s}
    return {name: value for name, value in figures.items() if value is not None}


def list_words(run: ExportedRun) -> dict[str, Scalar]:
    """What came out of the run in words: status, verdict, why it stopped."""
    return {name: value for name, value in _list_results(run).items() if isinstance(value, (str, bool))}


def flatten_run(run: ExportedRun) -> dict[str, Any]:
    """One row of a table: settings, then words and figures; what is unknown is None."""
    known = {**list_settings(run), **_list_results(run)}
    names = [name for name in run.row if name not in _OTHER and not isinstance(run.row[name], Mapping)]
    return {"run_id": run.run_id, "name": run.name, **dict.fromkeys(names), **known}


def list_attempts(run: ExportedRun) -> list[dict[str, Any]]:
    """A row for each attempt."""
    return [{"run_id": run.run_id, **row} for row in run.row["each_attempt"]]


def list_findings(run: ExportedRun) -> list[dict[str, Any]]:
    """A row for each finding."""
    return [
        {"run_id": run.run_id, **{name: each[name] for name in ("severity", "rule", "message")}}
        for each in run.row["findings"]
    ]


def list_windows(run: ExportedRun) -> list[dict[str, Any]]:
    """A row for each window of each attempt."""
    return [{"run_id": run.run_id, **asdict(each)} for each in run.windows]


def _list_results(run: ExportedRun) -> dict[str, Scalar]:
    names = [name for name in run.row if name not in (*_OTHER, *RunIdentity.__struct_fields__)]
    found: dict[str, Scalar] = {}
    for name in names:
        _flatten(name, run.row[name], found)
    return found


def _flatten(name: str, value: object, found: dict[str, Scalar]) -> None:
    if isinstance(value, Mapping):
        for part, inner in value.items():
            _flatten(name if part == "value" else f"{name}_{part}", inner, found)
    elif isinstance(value, (str, int, float, bool)):
        found[name] = value
