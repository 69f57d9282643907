"""What the user asked for, every default filled in, and the runs that follow from it. No plugin is asked here."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.settings import BY_NAME, SETTINGS
from tunemark.experiment.values import values


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One field per setting, under its name; an axis is a tuple. sources: where each value was written, if it was."""

    model: tuple[str, ...]
    dataset: tuple[str, ...]
    device: tuple[str, ...]
    size: tuple[str | None, ...]
    strategy: tuple[str, ...]
    method: tuple[str, ...]
    precision: tuple[str, ...]
    checkpointing: tuple[str, ...]
    batching: tuple[str, ...]
    sequence: tuple[int, ...]
    micro_batch: tuple[int, ...]
    global_batch: tuple[int | None, ...]
    train_on: tuple[str, ...]
    weights: tuple[str, ...]
    optimizer: tuple[str, ...]
    learning_rate: tuple[float, ...]
    schedule: tuple[str, ...]
    clip_norm: tuple[float, ...]
    seed: tuple[int, ...]
    python: tuple[str | None, ...]
    chip: str | None
    chips: int | None
    epochs: int | None
    steps: int | None
    warmup: int | None
    budget: float | None
    target_interval: float
    window: float
    trials: int
    evaluate: int | None
    sample: str | None
    save: str | None
    trust_remote_code: bool
    allow_pickle: bool
    breakdown: bool
    verify: bool
    repeats: int
    timeout: float
    launcher: str
    export: str | None
    max_restarts: int
    redo: bool
    oversubscribe: bool
    no_calibrate: bool
    store: str
    output: str | None
    language: str
    prices: str | None
    dry_run: bool
    json: bool
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One combination of values, by name of the setting, before any plugin was asked what they mean."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def place(self, name: str) -> str:
        """Where the value of a setting comes from, for error messages."""
        return self.sources.get(name, f"default of {BY_NAME[name].flag}")


def make_experiment(flags: Mapping[str, object], toml: str | Path | None = None) -> Experiment:
    """The experiment of a TOML file, of flags, or of both; flags win, and a flag that is None was not given."""
    for name in flags:
        if name not in BY_NAME:
            raise BadExperiment(what=f"no setting named {name!r}", next=did_you_mean(name, BY_NAME))
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    raw = read_toml(toml) if toml is not None else {}
    for setting in SETTINGS:
        name = setting.name
        if flags.get(name) is not None:
            sources[name] = f"flag {setting.flag}"
            chosen[name] = values(setting, flags[name], sources[name])
        elif name in raw:
            sources[name] = f"{toml}, key '{name}'"
            chosen[name] = values(setting, raw[name], sources[name])
        else:
            chosen[name] = (setting.default,) if setting.is_axis else setting.default
    # A device given as a flag replaces a file's size too where it names its own sizes.
    sized = any(":" in device for device in chosen["device"])
    if sized and flags.get("device") is not None and flags.get("size") is None:
        chosen["size"] = (None,)
    return Experiment(**chosen, sources=sources)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys of an experiment's file; one that is no setting is refused."""
    if sys.version_info >= (3, 11):
        import tomllib  # only where a file is given
    else:
        import tomli as tomllib

    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadExperiment(
            what=f"cannot read the experiment {str(path)!r}",
            why=str(why),
            next="give a TOML file of flags' names and values",
        ) from error
    for key in raw:
        if key not in BY_NAME:
            raise BadExperiment(
                what=f"no setting named {key!r}",
                why=f"{path}, key '{key}'",
                next=did_you_mean(key.replace("-", "_"), BY_NAME),
            )
    return raw


def points(experiment: Experiment) -> list[Point]:
    """Every combination of the axes' values, the last axis varying fastest; with `breakdown`, each without and with."""
    sized = [device for device in experiment.device if ":" in device]
    if sized and experiment.size != (None,):
        raise BadExperiment(
            what=f"the size is given twice: {sized[0]!r} and {', '.join(map(str, experiment.size))!r}",
            why=f"{experiment.sources.get('device')} and {experiment.sources.get('size')}",
            next="write sizes in one place",
        )
    axes = [s.name for s in SETTINGS if s.is_axis]
    fixed = {
        name: getattr(experiment, name)
        for name in (
            "chip",
            "chips",
            "epochs",
            "steps",
            "warmup",
            "budget",
            "target_interval",
            "window",
            "trials",
            "evaluate",
            "sample",
            "save",
            "trust_remote_code",
            "allow_pickle",
            "verify",
            "launcher",
            "oversubscribe",
        )
    }
    found = []
    for combination in itertools.product(*(getattr(experiment, name) for name in axes)):
        chosen = dict(zip(axes, combination, strict=True))
        device, colon, size = chosen["device"].partition(":")
        if colon:
            chosen.update(device=device, size=size)
        for breakdown in (False, True) if experiment.breakdown else (False,):
            values = {**chosen, **fixed, "breakdown": breakdown}
            if breakdown:
                # It trains a second time: one completion is told, and one model left.
                values.update(sample=None, save=None)
            found.append(Point(values=values, sources=experiment.sources))
    return found
