"""The experiment that the user asked for, with defaults filled in, and its grid of runs. No plugin is loaded here."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tunemark.errors import BadExperiment, UnknownName, did_you_mean
from tunemark.experiment.settings import (
    ALIASES,
    SETTINGS,
    SETTINGS_BY_NAME,
    MeasurementSettings,
    PredictionSettings,
    SessionSettings,
)
from tunemark.experiment.value_parsing import parse_values
from tunemark.given_file import read_given_file

T = TypeVar("T")

# Planning as many takes minutes; nobody asks for more on purpose.
_MOST_RUNS = 100_000


@dataclass(frozen=True, kw_only=True)
class Experiment(PredictionSettings, SessionSettings, MeasurementSettings):
    """The settings of all runs. axes: the values of each axis, by name. sources: where each value that was given
    stands."""

    axes: Mapping[str, tuple[Any, ...]]
    sources: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The value of a setting, or the values of an axis."""
        return self.axes[name] if name in self.axes else getattr(self, name)


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

    def look_up(self, setting: str, find: Callable[[str], T], name: str) -> T:
        """What a setting's value names. `find` raises `UnknownName`, to which the place of the value is added."""
        try:
            return find(name)
        except UnknownName as error:
            why = "; ".join(part for part in (self.place(setting), error.why) if part)
            raise UnknownName(what=error.what, why=why, next=error.next) from error


def make_experiment(flags: Mapping[str, object], toml: str | Path | None = None) -> Experiment:
    """The experiment of a TOML file, of flags, or of both; flags win, and a flag that is None was not given."""
    given = _rename_aliases(flags)
    for name in given:
        if name not in SETTINGS_BY_NAME:
            raise BadExperiment(what=f"no setting named {name!r}", next=did_you_mean(name, SETTINGS_BY_NAME))
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    raw = _rename_aliases(read_toml(toml)) if toml is not None else {}
    for setting in SETTINGS:
        name = setting.name
        if given.get(name) is not None:
            sources[name] = f"flag {setting.flag}"
            settings[name] = parse_values(setting, given[name], sources[name])
        elif name in raw:
            sources[name] = f"{toml}, key '{name}'"
            settings[name] = parse_values(setting, raw[name], sources[name])
        else:
            settings[name] = (setting.default,) if setting.is_axis else setting.default
    # A --device flag that names sizes also replaces the size in the file.
    has_sizes = any(":" in device for device in settings["device"])
    if has_sizes and given.get("device") is not None and given.get("size") is None:
        settings["size"] = (None,)
    axes = {setting.name: settings.pop(setting.name) for setting in SETTINGS if setting.is_axis}
    return Experiment(axes=axes, sources=sources, **settings)


def _rename_aliases(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, with former names of settings replaced; the present name wins."""
    found = {ALIASES[name]: value for name, value in given.items() if name in ALIASES}
    return {**found, **{k: v for k, v in given.items() if k not in ALIASES and (v is not None or k not in found)}}


def read_toml(path: str | Path) -> dict[str, Any]:
    """The keys of an experiment's TOML file, or of the built-in experiment of that name; `BadExperiment` for a key that
    is not a setting."""
    if sys.version_info >= (3, 11):
        import tomllib  # only where a file is given
    else:
        import tomli as tomllib

    built_in = list_built_in_experiments()
    file = built_in[str(path)] if str(path) in built_in and not Path(path).exists() else Path(path)
    try:
        raw = tomllib.loads(read_given_file(file).decode())
    except (OSError, ValueError, RecursionError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadExperiment(
            what=f"cannot read the experiment {str(path)!r}",
            why=str(why),
            next=f"give a TOML file whose keys are setting names, or a built-in experiment: {', '.join(built_in)}",
        ) from error
    for key in raw:
        if key not in SETTINGS_BY_NAME and key not in ALIASES:
            raise BadExperiment(
                what=f"no setting named {key!r}",
                why=f"{path}, key '{key}'",
                next=did_you_mean(key.replace("-", "_"), SETTINGS_BY_NAME),
            )
    return raw


def list_built_in_experiments() -> dict[str, Path]:
    """The files of the experiments that come with tunemark, by name."""
    folder = Path(__file__).with_name("built_in")
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def make_grid_points(experiment: Experiment) -> list[GridPoint]:
    """Every combination of the axes' values, the last axis varying fastest; with `breakdown`, each without and with."""
    axes = experiment.axes
    with_size = [device for device in axes["device"] if ":" in device]
    if with_size and axes["size"] != (None,):
        raise BadExperiment(
            what=f"the size is given twice: {with_size[0]!r} and {', '.join(map(str, axes['size']))!r}",
            why=f"{experiment.sources.get('device')} and {experiment.sources.get('size')}",
            next="give sizes in one place",
        )
    if (runs := math.prod(map(len, axes.values()))) > _MOST_RUNS:
        raise BadExperiment(
            what=f"that are {runs:,} runs",
            why=f"every combination of {', '.join(name for name, values in axes.items() if len(values) > 1)}",
            next=f"give fewer values; an experiment has at most {_MOST_RUNS:,} runs",
        )
    fixed = {setting.name: experiment[setting.name] for setting in SETTINGS if not setting.is_axis}
    grid = []
    for combination in itertools.product(*axes.values()):
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
