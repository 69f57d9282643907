"""The flags and the file that describe an experiment, as `run`, `scale`, `plan` and `predict` take them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.cli.messages import print_message
from tunemark.experiment import SETTINGS, Experiment, Setting, make_experiment
from tunemark.experiment.settings import (
    SETTINGS_BY_NAME,
    JobSettings,
    MeasurementSettings,
    PredictionSettings,
    SessionSettings,
    format_default,
)
from tunemark_worker.training_settings import TrainingSettings, read_settings

# The settings that most experiments give, before all others.
_FIRST = ("model", "dataset", "device", "strategy", "method", "precision", "batching", "sequence", "micro_batch",
          "repeats", "output")  # fmt: skip
# The groups in the order of the help, each with what it takes from the records of settings besides the rest of its own.
_GROUPS: Mapping[str, tuple[type | None, tuple[str, ...]]] = {
    "the settings that matter most": (None, _FIRST),
    "model and data": (JobSettings, ("train_on", "weights", "trust_remote_code", "allow_pickle")),
    "where it runs": (None, ("size", "python", "chip", "chips", "launcher", "export", "oversubscribe", "max_restarts",
                             "timeout", "trials")),
    "how it trains": (TrainingSettings, ("recipe",)),
    "how it is measured": (MeasurementSettings, ("verify", "redo", "no_measure_peak")),
    "what is kept and printed": (SessionSettings, ()),
    "what predictions take for granted": (PredictionSettings, ()),
}  # fmt: skip


def add_experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiment file and, in groups, a flag for every setting; flags that are not given are None."""
    if parser.usage is None:
        parser.usage = f"{parser.prog} [EXPERIMENT] [OPTIONS]"
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT",
        help="TOML file of settings, or a built-in experiment (`tunemark list experiments`); flags override it",
    )
    for title, settings in group_settings(SETTINGS).items():
        group = parser.add_argument_group(title)
        for setting in settings:
            _add_flag(group, setting)


def group_settings(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """The settings by the group in which the help shows them."""
    named = {name: title for title, (_, names) in _GROUPS.items() for name in reversed(names)}
    declared = {
        setting.name: title
        for title, (record, _) in _GROUPS.items()
        if record is not None
        for setting in read_settings(record)
    }
    found: dict[str, list[Setting]] = {title: [] for title in _GROUPS}
    for setting in settings:
        found[named.get(setting.name) or declared[setting.name]].append(setting)
    return found


def parse_experiment(args: argparse.Namespace) -> Experiment:
    """The experiment that the parsed flags and their file describe."""
    return make_experiment({s.name: getattr(args, s.name) for s in SETTINGS}, args.experiment)


def print_unused(experiment: Experiment, command: str, names: Sequence[str], why: str) -> None:
    """Say which flags were given that a command has no use for, and why. A file may hold them for another command."""
    flags = [SETTINGS_BY_NAME[name].flag for name in names if experiment.sources.get(name, "").startswith("flag ")]
    if flags:
        print_message(f"{command} does not use {', '.join(flags)}: {why}")


def _add_flag(group: argparse._ArgumentGroup, setting: Setting) -> None:
    # Argparse formats help texts with %.
    words = f"{setting.help} (default: {format_default(setting)})".replace("%", "%%")
    if setting.choices:
        words += f"; one of: {', '.join(setting.choices)}"
    flags = [setting.flag, *(["-o"] if setting.name == "output" else [])]
    if setting.type is bool:
        # BooleanOptionalAction would add `--no-no-measure-peak`.
        action: Any = "store_true" if setting.name.startswith("no_") else argparse.BooleanOptionalAction
        group.add_argument(*flags, dest=setting.name, action=action, default=None, help=words)
        for alias in setting.aliases:
            former = "--" + alias.replace("_", "-")
            group.add_argument(former, dest=setting.name, action=action, help=argparse.SUPPRESS)
        return
    kind = {str: "NAME", int: "N", float: "X"}[setting.type]
    metavar = kind + (",..." if setting.is_axis else "")
    group.add_argument(*flags, dest=setting.name, default=None, metavar=metavar, help=words)
