"""Checks of `--evaluate`, `--sample` and `--save`, which run outside the timed part: what cannot work is refused before
any device is touched."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.plan import Plan
from tunemark.plugin.descriptors import Model, Strategy
from tunemark_worker.contract import PROVENANCE_FILE


def check_evaluation_supported(point: GridPoint, model: Model, strategy: Strategy) -> None:
    """Refuse `--evaluate`, `--sample` or `--save` where the strategy or the model does not support it."""
    for setting in ("evaluate", "sample"):
        if point[setting] is not None and not strategy.can_evaluate:
            raise BadExperiment(
                what=f"strategy {strategy.name!r} cannot evaluate the whole model between training steps",
                why=f"{point.place(setting)}; {point.place('strategy')}",
                next=f"leave out --{setting}, or use another strategy, such as none or ddp",
            )
    if point["save"] is not None and not strategy.can_save:
        raise BadExperiment(
            what=f"strategy {strategy.name!r} cannot gather the full weights",
            why=f"{point.place('save')}; {point.place('strategy')}",
            next="leave out --save, or use another strategy, such as none or ddp",
        )
    if point["sample"] is not None and model.tokenizer is None:
        raise BadExperiment(
            what=f"{model.name} has no tokenizer, and a sample is text",
            why=point.place("sample"),
            next="leave out --sample, or choose a model that `tunemark list models` shows with a tokenizer",
        )


def absolute_save_path(point: GridPoint) -> str | None:
    """The absolute path that the model will be saved to; None without `--save`."""
    path: str | None = point["save"]
    return None if path is None else os.path.abspath(os.path.expanduser(path))


def is_saved(path: str, run_id: str) -> bool:
    """Whether this run has already saved its model there."""
    try:
        marker = json.loads((Path(path) / PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("run_id") == run_id


def check_save_folder(path: str, run_id: str, source: str) -> None:
    """Refuse a folder that cannot be created, or that holds anything but the model which this same run saved.

    source: where the setting was given, for the message."""
    folder = Path(path)
    if is_saved(path, run_id):
        return
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BadExperiment(
            what=f"cannot save to {path!r}: it exists already" + (" and is not empty" if folder.is_dir() else ""),
            why=f"{source}; nothing is overwritten",
            next="name a new folder, or move that one away",
        )
    parent = next(each for each in folder.parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise BadExperiment(
            what=f"cannot save to {path!r}: {str(parent)!r} is not writable",
            why=source,
            next="name a folder that you can write to",
        )


def check_single_save(plans: Sequence[Plan]) -> None:
    """Refuse `--save` for more than one run: a folder holds one model."""
    saving = [plan for plan in plans if plan.spec.save]
    if len(saving) > 1:
        raise BadExperiment(
            what=f"--save keeps one model, but the experiment has {len(saving)} runs",
            why="each run trains another model",
            next="save one run at a time, each to its own folder",
        )


def check_save_writable(plans: Sequence[Plan]) -> None:
    """Refuse a path where creating a folder fails, whatever the permissions say. Leaves nothing behind."""
    for path in (Path(plan.spec.save) for plan in plans if plan.spec.save):
        parent = next(each for each in path.parents if each.exists())
        try:
            with tempfile.TemporaryDirectory(dir=parent, prefix=".writable-"):
                pass
        except OSError as error:
            raise BadExperiment(
                what=f"cannot save to {str(path)!r}: no folder can be created in {str(parent)!r}",
                why=str(error.strerror or error),
                next="name a folder that you can write to",
            ) from error


def check_not_saved_before(plans: Sequence[Plan]) -> None:
    """Refuse to repeat a run whose saved model would be overwritten."""
    for plan in plans:
        if plan.spec.save and is_saved(plan.spec.save, plan.run_id):
            raise BadExperiment(
                what=f"cannot save to {plan.spec.save!r} again: this run has already saved its model there",
                why="--redo; nothing is overwritten",
                next="name a new folder, or move that one away",
            )
