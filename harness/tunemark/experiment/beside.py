"""What a run does beside its timed part (`--evaluate`, `--sample`, `--save`), refused before any device is touched
where it cannot be done."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import Point
from tunemark.experiment.plan import Plan
from tunemark.plugin.descriptors import Model, Strategy
from tunemark_worker.contract import SAVED_BY


def check_beside(point: Point, model: Model, strategy: Strategy) -> None:
    """Refuse what the strategy or the model cannot do."""
    for setting in ("evaluate", "sample"):
        if point[setting] is not None and not strategy.can_evaluate:
            raise BadExperiment(
                what=f"strategy {strategy.name!r} does not answer for the whole model's scores beside its steps",
                why=f"{point.place(setting)}; {point.place('strategy')}",
                next=f"leave out --{setting}, or use another strategy, such as none or ddp",
            )
    if point["save"] is not None and not strategy.can_save:
        raise BadExperiment(
            what=f"strategy {strategy.name!r} does not give the whole weights back",
            why=f"{point.place('save')}; {point.place('strategy')}",
            next="leave out --save, or use another strategy, such as none or ddp",
        )
    if point["sample"] is not None and model.tokenizer is None:
        raise BadExperiment(
            what=f"{model.name} has no tokenizer, and a sample is text",
            why=point.place("sample"),
            next="leave out --sample, or choose a model that `tunemark list models` shows with a tokenizer",
        )


def saved_path(point: Point) -> str | None:
    """Where the model will be left, absolute."""
    given: str | None = point["save"]
    return None if given is None else os.path.abspath(os.path.expanduser(given))


def is_saved(path: str, run_id: str) -> bool:
    """Whether a run has left its model there."""
    try:
        stated = json.loads((Path(path) / SAVED_BY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and stated.get("run_id") == run_id


def check_folder(path: str, run_id: str, place: str) -> None:
    """Refuse a folder that cannot be made, or holds anything but what this very run has left."""
    folder = Path(path)
    if is_saved(path, run_id):
        return
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BadExperiment(
            what=f"cannot save to {path!r}: it is there already" + (" and not empty" if folder.is_dir() else ""),
            why=f"{place}; nothing is overwritten",
            next="name a new folder, or move that one away",
        )
    above = next(each for each in folder.parents if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BadExperiment(
            what=f"cannot save to {path!r}: {str(above)!r} cannot be written to",
            why=place,
            next="name a folder that you may write to",
        )


def check_one_saves(plans: Sequence[Plan]) -> None:
    """A folder holds one model."""
    saving = [plan for plan in plans if plan.spec.save]
    if len(saving) > 1:
        raise BadExperiment(
            what=f"--save keeps one model, and {len(saving)} runs are asked for",
            why="each of them would train another",
            next="save one run at a time, each in a folder of its own",
        )


def prove_saveable(plans: Sequence[Plan]) -> None:
    """Refuse a place where no folder can be made, whatever its permissions say: nothing is left behind."""
    for path in (Path(plan.spec.save) for plan in plans if plan.spec.save):
        above = next(each for each in path.parents if each.exists())
        try:
            with tempfile.TemporaryDirectory(dir=above, prefix=".writable-"):
                pass
        except OSError as error:
            raise BadExperiment(
                what=f"cannot save to {str(path)!r}: no folder can be made in {str(above)!r}",
                why=str(error.strerror or error),
                next="name a folder that you may write to",
            ) from error


def check_not_saved(plans: Sequence[Plan]) -> None:
    """Refuse to train again what would be saved over what it has left before."""
    for plan in plans:
        if plan.spec.save and is_saved(plan.spec.save, plan.run_id):
            raise BadExperiment(
                what=f"cannot save to {plan.spec.save!r} again: this run has left its model there before",
                why="--redo; nothing is overwritten",
                next="name a new folder, or move that one away",
            )
