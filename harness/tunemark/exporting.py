"""Finished runs as exporters get them, and whether what an exporter needs is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.plugin import ExportedRun, ExportedWindow, Exporter
from tunemark.plugin.catalog import load_object
from tunemark.results.result import Result, encode_result
from tunemark.results.trace import Trace


def export_runs(
    exporter: Exporter, results: Sequence[Result], traces: Mapping[str, Sequence[Trace]], destination: Path
) -> list[str]:
    """Give runs to an exporter, with the windows of their attempts by run_id, and return what it wrote, a line each.
    `BadExperiment` where a package that it needs is missing, or where it fails to write."""
    missing = find_missing_modules(exporter)
    if missing:
        raise BadExperiment(
            what=f"the exporter {exporter.name!r} needs {', '.join(missing)}, which is not installed",
            why=f"it installs {exporter.cost}" if exporter.cost else "",
            next=f"pip install 'tunemark[{exporter.extra}]'" if exporter.extra else f"pip install {' '.join(missing)}",
        )
    runs = [make_exported_run(result, traces.get(result.run_id, ())) for result in results]
    try:
        return [str(line) for line in load_object(exporter.export)(runs, destination)]
    except OSError as error:
        raise BadExperiment(
            what=f"cannot write {destination}", why=str(error), next="name another place by --output"
        ) from error


def find_missing_modules(exporter: Exporter) -> list[str]:
    """The modules that an exporter needs and that are not installed."""
    return [name for name in exporter.modules if importlib.util.find_spec(name) is None]


def make_exported_run(result: Result, traces: Sequence[Trace]) -> ExportedRun:
    """A run as exporters get it: exactly the values of its line in runs.jsonl."""
    return ExportedRun(
        run_id=result.run_id,
        name=" ".join((result.model, f"{result.device}:{result.size}", result.strategy_requested)),
        row=json.loads(encode_result(result)),
        windows=[window for trace in traces for window in _make_windows(trace)],
    )


def _make_windows(trace: Trace) -> Iterator[ExportedWindow]:
    """The windows of an attempt. Of a thinned trace the windows between are missing, and so is each one's length."""
    is_whole, begun_s = len(trace.kept) == trace.windows, 0.0
    for window in trace.kept:
        yield ExportedWindow(
            attempt=trace.attempt,
            steps=window.steps,
            end_s=window.end_s,
            step_time_s=window.step_time_s,
            tokens_per_s=window.content / (window.end_s - begun_s) if is_whole else None,
            is_timed=trace.is_timed(window.steps),
        )
        begun_s = window.end_s
