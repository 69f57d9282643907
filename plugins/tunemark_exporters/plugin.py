"""The exporters: trackers of experiments, and tables for queries."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Exporter, hookimpl


@hookimpl
def tunemark_exporters() -> Sequence[Exporter]:
    return [
        Exporter(
            name="sqlite",
            export="tunemark_exporters.tables:write_sqlite",
            description="runs, attempts, findings and windows as tables of one SQLite database",
            destination="a file",
        ),
        Exporter(
            name="parquet",
            export="tunemark_exporters.tables:write_parquet",
            description="the same tables as Parquet files, which DuckDB, Polars, Spark and pandas read",
            destination="a folder",
            modules=("pyarrow",),
        ),
        Exporter(
            name="tensorboard",
            export="tunemark_exporters.tensorboard_logs:write_events",
            description="figures and the rate of every window as scalars, settings as hyper-parameters",
            destination="a log directory",
            modules=("tensorboard",),
            extra="tensorboard",
            cost="tensorboard and grpcio",
        ),
        Exporter(
            name="prometheus",
            export="tunemark_exporters.prometheus:write_text",
            description="figures as gauges in a text file, for a textfile collector",
            destination="a file, such as tunemark.prom",
            modules=("prometheus_client",),
            extra="prometheus",
            cost="one small package",
        ),
        Exporter(
            name="mlflow",
            export="tunemark_exporters.mlflow_runs:write_runs",
            description="runs of the experiment tunemark, with parameters and metrics",
            destination="a file, such as mlflow.db",
            modules=("mlflow", "sqlalchemy", "alembic"),
            extra="mlflow",
            cost="mlflow-skinny, sqlalchemy and alembic",
        ),
        Exporter(
            name="wandb",
            export="tunemark_exporters.wandb_runs:write_runs",
            description="offline runs, which `wandb sync` uploads; nothing is sent from here",
            destination="a folder",
            modules=("wandb",),
            extra="wandb",
            cost="wandb with its core program",
        ),
        Exporter(
            name="trackio",
            export="tunemark_exporters.trackio_runs:write_runs",
            description="a local project of Hugging Face's trackio",
            destination="a folder",
            modules=("trackio",),
            extra="trackio",
            cost="trackio with gradio",
        ),
    ]
