"""What other programs' training loops take of a run's settings: what they do not take is refused in the plan."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.settings import JobSettings, MeasurementSettings, format_default
from tunemark.experiment.trainer_environments import find_environment
from tunemark.plugin.descriptors import Architecture, Trainer
from tunemark_worker.training_settings import TRAINING_SETTINGS, read_settings

# What is done whatever trains: which model, from which weights, on which rows, where, with which allocator and for how
# long.
CARRIED_OUT = frozenset((
    "model", "dataset", "device", "size", "train_on", "python", "sequence", "micro_batch", "global_batch", "weights",
    "learning_rate", "seed", "trainer", "allocator", "warmup", "steps", "epochs", "budget", "target_interval", "window",
))  # fmt: skip
_SETTINGS = (*read_settings(JobSettings), *TRAINING_SETTINGS, *read_settings(MeasurementSettings))


def refuse_absent(trainer: Trainer, place: str) -> None:
    """Raise `BadExperiment` for a trainer that has no runtime. place: where the trainer was given."""
    if trainer.absent:
        raise BadExperiment(
            what=f"the trainer {trainer.name!r} cannot be run yet",
            why=f"{place}; {trainer.absent}",
            next="measure a training script of yours that uses it by --trainer script:path=FILE, where it runs; or "
            "another --trainer (`tunemark list trainers`)",
        )


def find_trainer_python(trainer: Trainer, place: str) -> str | None:
    """The trainer's own interpreter; None where it runs in tunemark's. place: where the trainer was given. Raises
    `BadExperiment` where there is neither."""
    own = find_environment(trainer)
    if own is not None:
        return own.python
    missing = [name for name in trainer.requires if importlib.util.find_spec(name) is None]
    if trainer.environment is None or not missing:
        return None
    raise BadExperiment(
        what=f"the trainer {trainer.name!r} is not installed",
        why=f"{place}; this interpreter lacks {', '.join(missing)}",
        next=f"`tunemark trainers install {trainer.name}` makes an interpreter of its own; or --python with one that "
        "has it",
    )


def find_files(trainer: Trainer, options: Mapping[str, str], place: str) -> dict[str, str]:
    """The options, with absolute paths of the files that they name. place: where the trainer was given."""
    found = dict(options)
    for name in trainer.file_options:
        path = Path(found.get(name, "")).expanduser()
        if not path.is_file():
            raise BadExperiment(
                what=f"the trainer {trainer.name!r} needs a file: {found.get(name) or 'none'!r} is none",
                why=f"{place}; {name}: {trainer.options.get(name, 'a file')}",
                next=f"--trainer {trainer.name}:{name}=FILE",
            )
        found[name] = str(path.absolute())
    return found


def check_trainer(point: GridPoint, trainer: Trainer, architecture: Architecture, settings: Mapping[str, Any]) -> None:
    """Raise `BadExperiment` for settings that a trainer does not take. settings: of the run, by name."""
    if not trainer.runtime:
        return
    for setting in _SETTINGS:
        name, value = setting.name, settings[setting.name]
        if name in CARRIED_OUT:
            continue
        taken = trainer.honours.get(name, (setting.default,))
        if taken and value not in taken:
            words = ", ".join(str(each) for each in taken if each is not None) or "it must be left out"
            raise BadExperiment(
                what=f"the trainer {trainer.name!r} does not take {setting.flag} {value}",
                why=f"{point.place(name)}; it takes {words}",
                next=f"{setting.flag} {taken[0] if taken[0] is not None else format_default(setting)}, or another "
                "--trainer; each run of a sweep must be one that its trainer can do",
            )
    why = trainer.refusal(architecture, settings)
    if why:
        raise BadExperiment(
            what=f"the trainer {trainer.name!r} cannot do this run",
            why=f"{point.place('trainer')}; {why}",
            next="change it, or choose another --trainer",
        )
