"""Runs as TensorBoard's event files: figures and the rate of every window as scalars, settings as hyper-parameters.

Source: github.com/tensorflow/tensorboard, `tensorboard/plugins/scalar/metadata.py`, `tensorboard/plugins/hparams/
summary_v2.py`. Scalars are written as 64-bit numbers, as runs.jsonl holds them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunemark.plugin import ExportedRun
from tunemark_exporters.figures import list_figures, list_settings, list_window_figures, list_words

_DOUBLE = 2  # DT_DOUBLE of tensorboard/compat/proto/types.proto


def write_events(runs: Sequence[ExportedRun], destination: Path) -> list[str]:
    """Write a folder for each run, by its id, and one below it for each attempt, into the log directory."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run in runs:
        folder = destination / run.run_id
        # Event files are only ever appended to: an earlier export of the run would stand beside this one.
        shutil.rmtree(folder, ignore_errors=True)
        writer = EventFileWriter(str(folder))
        settings = {**list_settings(run), **list_words(run), "name": run.name}
        writer.add_event(_make_event(hparams_pb(settings, trial_id=run.run_id, start_time_secs=0.0), 0))
        for name, value in list_figures(run).items():
            writer.add_event(_make_event(_make_scalar(name, value), 0))
        writer.close()
        for attempt in dict.fromkeys(window.attempt for window in run.windows):
            writer = EventFileWriter(str(folder / attempt))
            for window in run.windows:
                if window.attempt == attempt:
                    for name, value in list_window_figures(window).items():
                        writer.add_event(_make_event(_make_scalar(f"window/{name}", value), window.steps))
            writer.close()
    return [f"{destination}: {len(runs):,} runs; tensorboard --logdir {destination}"]


def _make_scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    tensor = TensorProto(dtype=_DOUBLE, double_val=[value], tensor_shape=TensorShapeProto())
    metadata = create_summary_metadata(display_name=tag, description="")
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def _make_event(summary: Any, step: int) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(summary=summary, step=step, wall_time=0.0)
