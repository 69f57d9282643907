"""Runs for trackio, Hugging Face's local tracker, which keeps a project in one SQLite file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import list_figures, list_settings, list_window_figures, list_words


def write_runs(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write the project "tunemark" into the folder `destination`."""
    import sys

    if "trackio" in sys.modules and os.environ.get("TRACKIO_DIR") != str(destination):
        raise BadExperiment(
            what="trackio writes to one folder in each process",
            why="it was imported already, with another TRACKIO_DIR",
            next="run `tunemark export` in a process of its own",
        )
    # Read when trackio is imported.
    os.environ["TRACKIO_DIR"] = str(destination)
    import trackio

    for run in runs:
        trackio.init(
            project="tunemark",
            name=f"{run.name} {run.run_id}",
            config={**list_settings(run), **list_words(run)},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for window in run.windows:
            figures = {**list_window_figures(window), "steps": window.steps}
            trackio.log({f"{window.attempt}/{name}": value for name, value in figures.items()})
        trackio.log(list_figures(run))
        trackio.finish()
    return [f"{destination}: {len(runs):,} runs; TRACKIO_DIR={destination} trackio show --project tunemark"]
