"""`tunemark trainers install NAME`: make an interpreter of its own for another program's training loop."""

from __future__ import annotations

import argparse
import sys

from tunemark.cli.messages import print_message
from tunemark.errors import BadExperiment, did_you_mean
from tunemark.experiment.other_trainers import refuse_absent
from tunemark.experiment.trainer_environments import environment_folder, find_environment
from tunemark.number_format import GIB
from tunemark.plugin import Catalog, Trainer

_ACTIONS = ("install", "remove")

EXAMPLES = (
    ("tunemark trainers install trl", "says what it takes, and asks"),
    ("tunemark trainers install trl,litgpt --yes", "does not ask"),
    ("tunemark trainers remove trl", "deletes that interpreter"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help=", ".join(_ACTIONS))
    parser.add_argument("names", metavar="NAME,...", help="trainers (`tunemark list trainers`)")
    parser.add_argument("--yes", action="store_true", help="install without asking")


def execute(args: argparse.Namespace) -> int:
    if args.action not in _ACTIONS:
        raise BadExperiment(what=f"trainers cannot be {args.action!r}", next=did_you_mean(args.action, _ACTIONS))
    catalog = Catalog()
    trainers = [catalog.trainer(name.strip()) for name in args.names.split(",") if name.strip()]
    if args.action == "remove":
        from tunemark.launch.environment_install import remove_environment  # starts processes, not needed by --help

        for trainer in trainers:
            print(f"{trainer.name}: {'removed' if remove_environment(trainer) else 'there was no environment'}")
        return 0
    for trainer in trainers:
        refuse_absent(trainer, "`tunemark trainers install`")
    wanted = [trainer for trainer in trainers if _needs_environment(trainer)]
    if wanted and not args.yes:
        _ask(wanted)
    from tunemark.launch.environment_install import install_environment  # starts processes, not needed by --help

    for trainer in wanted:
        made = install_environment(trainer, print_message)
        version = made.versions.get(trainer.package, "of unknown version")
        print(f"{trainer.name}: {trainer.package} {version} in {made.python}")
    return 0


def _needs_environment(trainer: Trainer) -> bool:
    if trainer.environment is None:
        print(f"{trainer.name}: needs no environment of its own")
        return False
    if (found := find_environment(trainer)) is not None:
        print(
            f"{trainer.name}: is there, in {found.python}; to make it anew, `tunemark trainers remove {trainer.name}`"
        )
        return False
    return True


def _ask(trainers: list[Trainer]) -> None:
    """Say what the environments take, and ask; `BadExperiment` where nobody can answer, or the answer is no."""
    for trainer in trainers:
        assert trainer.environment is not None, "others are left out"
        size = trainer.environment.bytes / GIB
        print_message(f"{trainer.name}: about {size:.1f} GiB in {environment_folder(trainer)} (with torch for CPUs)")
        print_message(f"  {', '.join((*trainer.environment.requirements, *trainer.environment.without_dependencies))}")
    if not sys.stdin.isatty():
        raise BadExperiment(what="nothing was installed", why="nobody can be asked here", next="add --yes")
    print("install? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadExperiment(what="nothing was installed", next="`tunemark list trainers` says what there is")
