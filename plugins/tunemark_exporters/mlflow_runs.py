"""Runs in an MLflow database: settings as parameters, figures as metrics, the rate of every window by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import list_figures, list_settings, list_window_figures, list_words

_EXPERIMENT = "tunemark"
# MLflow's own limit of one request.
_BATCH = 500


def write_runs(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Add the runs that the SQLite file `destination` does not have yet, under the experiment "tunemark"."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{destination.absolute()}")
    known = client.get_experiment_by_name(_EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(_EXPERIMENT)
    there = {run.data.tags.get("tunemark.row") for run in client.search_runs([experiment], max_results=50_000)}
    added = 0
    for run in runs:
        row = _identify(run)
        if row in there:
            continue
        added += 1
        began = client.create_run(experiment, start_time=0, run_name=run.name)
        id = began.info.run_id
        params = [Param(name, str(value)) for name, value in list_settings(run).items()]
        tags = [RunTag(name, str(value)) for name, value in {**list_words(run), "tunemark.row": row}.items()]
        client.log_batch(id, params=params[:100], tags=tags)
        for at in range(100, len(params), 100):
            client.log_batch(id, params=params[at : at + 100])
        metrics = [Metric(name, value, 0, 0) for name, value in list_figures(run).items()]
        metrics += [
            Metric(f"{window.attempt}/{name}", value, int(1000 * window.end_s), window.steps)
            for window in run.windows
            for name, value in list_window_figures(window).items()
        ]
        for at in range(0, len(metrics), _BATCH):
            client.log_batch(id, metrics=metrics[at : at + _BATCH])
        client.set_terminated(id, "FINISHED" if run.row["status"] == "ok" else "FAILED", end_time=0)
    return [f"{destination}: {added:,} runs added, {len(runs) - added:,} were there; mlflow ui --backend-store-uri "
            f"sqlite:///{destination}"]  # fmt: skip


def _identify(run: ExportedRun) -> str:
    """A run and its series: measured again, it is another run for MLflow."""
    attempts = run.row["each_attempt"]
    return f"{run.run_id}/{attempts[-1]['name'] if attempts else ''}"
