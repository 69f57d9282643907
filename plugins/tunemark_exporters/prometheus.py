"""Runs as a Prometheus text file, for a node exporter's textfile collector or a push gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.atomic_write import write_atomically
from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import list_figures

if TYPE_CHECKING:
    from prometheus_client import Metric

_LABELS = ("run_id", "model", "dataset", "device", "size", "strategy", "precision", "batching", "verdict")


def write_text(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write every figure as a gauge `tunemark_NAME`, with the run's settings as labels, to the file `destination`."""
    from prometheus_client import generate_latest
    from prometheus_client.registry import Collector, CollectorRegistry

    class Runs(Collector):  # type: ignore[misc,unused-ignore]  # untyped where the package is absent
        def collect(self) -> Iterator[Metric]:
            return iter(_make_metrics(runs))

    registry = CollectorRegistry()
    registry.register(Runs())
    write_atomically(destination, generate_latest(registry))
    return [f"{destination}: figures of {len(runs):,} runs"]


def _make_metrics(runs: Sequence[ExportedRun]) -> list[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    found: dict[str, GaugeMetricFamily] = {}
    for run in runs:
        row = {**run.row, "strategy": run.row["strategy_requested"]}
        labels = [str(row.get(name) or "") for name in _LABELS]
        for name, value in list_figures(run).items():
            family = found.get(name)
            if family is None:
                words = f"{name} of runs.jsonl, in SI units"
                family = found[name] = GaugeMetricFamily(f"tunemark_{name}", words, labels=_LABELS)
            family.add_metric(labels, value)
    return list(found.values())
