"""What a run does beside its timed part (`--evaluate`, `--sample`, `--save`), refused before any device is touched
where it cannot be done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import Point
from tunemark.experiment.plan import Plan
from tunemark.plugin.descriptors import Model, Strategy


def check_beside(point: Point, model: Model, strategy: Strategy) -> None:
    """Refuse what the strategy or the model cannot do."""
    for setting in ("evaluate", "sample"):
        if point[setting] is not None and not strategy.can_evaluate:
            raise BadExperiment(
                what=f"strategy {strategy.name!r} cannot be asked for scores beside its training steps",
                why=f"{point.place(setting)}; {point.place('strategy')}: no process runs the whole model forward",
                next=f"leave out --{setting}, or use another strategy: none, ddp",
            )
    if point["save"] is not None and not strategy.can_save:
        raise BadExperiment(
            what=f"strategy {strategy.name!r} cannot give the whole weights back",
            why=f"{point.place('save')}; {point.place('strategy')}: its runtime shards them and gathers them nowhere",
            next="leave out --save, or use another strategy: none, ddp",
        )
    if point["sample"] is not None and model.tokenizer is None:
        raise BadExperiment(
            what=f"{model.name} has no tokenizer, and a sample is text",
            why=point.place("sample"),
            next="leave out --sample, or choose a model that `tunemark list models` shows with a tokenizer",
        )
    if point["save"] is not None:
        _check_folder(saved_path(point) or "", point.place("save"))


def saved_path(point: Point) -> str | None:
    """Where the model will be left, absolute."""
    given: str | None = point["save"]
    return None if given is None else os.path.abspath(os.path.expanduser(given))


def check_one_saves(plans: Sequence[Plan]) -> None:
    """A folder holds one model."""
    if len(plans) > 1 and any(plan.spec.save for plan in plans):
        raise BadExperiment(
            what=f"--save keeps one model, and {len(plans)} runs are asked for",
            why="each of them would train another",
            next="save one run at a time, each in a folder of its own",
        )


def _check_folder(path: str, place: str) -> None:
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadExperiment(
            what=f"cannot save to {path!r}: it is there already" + (" and not empty" if folder.is_dir() else ""),
            why=f"{place}; nothing is overwritten",
            next="name a new folder, or move that one away",
        )
    above = next(each for each in (folder, *folder.parents) if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BadExperiment(
            what=f"cannot save to {path!r}: {str(above)!r} cannot be written to",
            why=place,
            next="name a folder that you may write to",
        )
