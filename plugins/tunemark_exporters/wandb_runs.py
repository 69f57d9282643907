"""Runs for Weights & Biases, offline: `wandb sync` uploads them, tunemark sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import list_figures, list_settings, list_window_figures, list_words

_PROJECT = "tunemark"


def write_runs(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write an offline run for each run into the folder `destination`."""
    import wandb

    destination.mkdir(parents=True, exist_ok=True)
    # Neither the terminal nor the machine's state belongs to runs that ended long ago.
    settings = wandb.Settings(
        mode="offline", console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True,
        disable_code=True, save_code=False,
    )  # fmt: skip
    for run in runs:
        tracked = wandb.init(
            project=_PROJECT, id=run.run_id, name=run.name, dir=str(destination), settings=settings,
            config={**list_settings(run), **list_words(run)},
        )  # fmt: skip
        for number, window in enumerate(run.windows):
            figures = {**list_window_figures(window), "steps": window.steps}
            tracked.log({f"{window.attempt}/{name}": value for name, value in figures.items()}, step=number)
        tracked.summary.update({**list_figures(run), **list_words(run)})
        tracked.finish()
    return [f"{destination / 'wandb'}: {len(runs):,} offline runs; wandb sync {destination / 'wandb'}/offline-run-*"]
