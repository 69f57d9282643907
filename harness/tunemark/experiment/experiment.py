"""The experiment that the user asked for, with defaults filled in, and its grid of runs. No plugin is loaded here."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.settings import SETTINGS, SETTINGS_BY_NAME
from tunemark.experiment.value_parsing import parse_values


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One field per setting, under its name; an axis is a tuple. sources: where each value that was given stands."""

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
class GridPoint:
    """One combination of the axes' values, by setting name, before plugins resolve them."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def place(self, name: str) -> str:
        """Where the value of a setting was given, for error messages."""
        return self.sources.get(name, f"default of {SETTINGS_BY_NAME[name].flag}")


def make_experiment(flags: Mapping[str, object], toml: str | Path | None = None) -> Experiment:
    """The experiment of a TOML file, of flags, or of both; flags win, and a flag that is None was not given."""
    for name in flags:
        if name not in SETTINGS_BY_NAME:
            raise BadExperiment(what=f"no setting named {name!r}", next=did_you_mean(name, SETTINGS_BY_NAME))
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    raw = read_toml(toml) if toml is not None else {}
    for setting in SETTINGS:
        name = setting.name
        if flags.get(name) is not None:
            sources[name] = f"flag {setting.flag}"
            settings[name] = parse_values(setting, flags[name], sources[name])
        elif name in raw:
            sources[name] = f"{toml}, key '{name}'"
            settings[name] = parse_values(setting, raw[name], sources[name])
        else:
            settings[name] = (setting.default,) if setting.is_axis else setting.default
    # A --device flag that names sizes also replaces the size in the file.
    has_sizes = any(":" in device for device in settings["device"])
    if has_sizes and flags.get("device") is not None and flags.get("size") is None:
        settings["size"] = (None,)
    return Experiment(**settings, sources=sources)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys of an experiment's TOML file; `BadExperiment` for a key that is not a setting."""
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
            next="give a TOML file whose keys are setting names",
        ) from error
    for key in raw:
        if key not in SETTINGS_BY_NAME:
            raise BadExperiment(
                what=f"no setting named {key!r}",
                why=f"{path}, key '{key}'",
                next=did_you_mean(key.replace("-", "_"), SETTINGS_BY_NAME),
            )
    return raw


def make_grid_points(experiment: Experiment) -> list[GridPoint]:
    """Every combination of the axes' values, the last axis varying fastest; with `breakdown`, each without and with."""
    with_size = [device for device in experiment.device if ":" in device]
    if with_size and experiment.size != (None,):
        raise BadExperiment(
            what=f"the size is given twice: {with_size[0]!r} and {', '.join(map(str, experiment.size))!r}",
            why=f"{experiment.sources.get('device')} and {experiment.sources.get('size')}",
            next="give sizes in one place",
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
    grid = []
    for combination in itertools.product(*(getattr(experiment, name) for name in axes)):
        axis_values = dict(zip(axes, combination, strict=True))
        device, colon, size = axis_values["device"].partition(":")
        if colon:
            axis_values.update(device=device, size=size)
        for breakdown in (False, True) if experiment.breakdown else (False,):
            values = {**axis_values, **fixed, "breakdown": breakdown}
            if breakdown:
                # The run is repeated: sample and save once only.
                values.update(sample=None, save=None)
            grid.append(GridPoint(values=values, sources=experiment.sources))
    return grid
