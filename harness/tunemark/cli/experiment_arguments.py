"""The flags and the file that describe an experiment, as `run`, `scale`, `plan` and `predict` take them."""

from __future__ import annotations

import argparse
from typing import Any

from tunemark.experiment import SETTINGS, Experiment, make_experiment
from tunemark.experiment.settings import format_default


def add_experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiment file and a flag for every setting; flags that are not given are None."""
    parser.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT.toml", help="TOML file of settings; flags override it"
    )
    for setting in SETTINGS:
        # Argparse formats help texts with %.
        words = f"{setting.help} (default: {format_default(setting)})".replace("%", "%%")
        if setting.choices:
            words += f"; one of: {', '.join(setting.choices)}"
        flags = [setting.flag, *(["-o"] if setting.name == "output" else [])]
        if setting.type is bool:
            # BooleanOptionalAction would add `--no-no-measure-peak`.
            action: Any = "store_true" if setting.name.startswith("no_") else argparse.BooleanOptionalAction
            parser.add_argument(*flags, dest=setting.name, action=action, default=None, help=words)
            for alias in setting.aliases:
                former = "--" + alias.replace("_", "-")
                parser.add_argument(former, dest=setting.name, action=action, help=argparse.SUPPRESS)
        else:
            kind = {str: "NAME", int: "N", float: "X"}[setting.type]
            metavar = kind + (",..." if setting.is_axis else "")
            parser.add_argument(*flags, dest=setting.name, default=None, metavar=metavar, help=words)


def parse_experiment(args: argparse.Namespace) -> Experiment:
    """The experiment that the parsed flags and their file describe."""
    return make_experiment({s.name: getattr(args, s.name) for s in SETTINGS}, args.experiment)
