"""`tunemark COMMAND`: import that command alone, print what the user can mend, and end with an exit code.

0: what was asked is true now. 2: the user's to mend. 130: interrupted. 141: nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tunemark.errors import BadExperiment, TunemarkError, did_you_mean

_COMMANDS = {
    "run": ("run", "measure every run of an experiment"),
    "scale": ("scale", "measure speed-up and efficiency over sizes, strong or weak, with a fitted law"),
    "plan": ("plan", "print every run of an experiment and what it costs, without running"),
    "predict": ("predict", "predict the step time and memory of an experiment or of published rows"),
    "calibrate": ("calibrate", "measure what a device reaches, for predictions of it"),
    "list": ("listing", "print the installed devices, models, datasets, strategies, launchers or plugins"),
    "schema": ("schema", "print the JSON Schema of what tunemark reads and writes"),
    "report": ("report", "arrange finished runs in a report"),
    "compare": ("compare", "hold runs against each other, like with like"),
    "new": ("new", "write a plugin to begin with: a model, a dataset or a device"),
    "check": ("check", "hold a plugin to what is promised of it"),
    "why": ("why", "say what differs between two runs, ranked by how much it can matter"),
    "gate": ("gate", "say whether runs have become slower than a baseline: pass, fail or no verdict"),
    "audit": ("audit", "hold a log, a table or a running program against physics, the clock and itself"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _command(words)
        sys.stdout.flush()
    except TunemarkError as error:
        print(f"tunemark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _command(words: list[str]) -> int:
    if not words:
        print(_help(), file=sys.stderr)
        return 2
    if words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        from tunemark import __version__

        print(f"tunemark {__version__}")
        return 0
    if words[0] not in _COMMANDS:
        raise BadExperiment(
            what=f"no command named {words[0]!r}", why="it is the first word", next=did_you_mean(words[0], _COMMANDS)
        )
    name, description = _COMMANDS[words[0]]
    module = importlib.import_module(f"tunemark.cli.{name}")
    parser = _Parser(prog=f"tunemark {words[0]}", description=description, allow_abbrev=False)
    module.add_arguments(parser)
    own, command = words[1:], []
    if getattr(module, "TAKES_COMMAND", False) and "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    try:
        args, rest = parser.parse_known_args(own, argparse.Namespace(command=command))
    except SystemExit as end:  # --help
        return int(end.code or 0)
    if rest:
        parser.refuse(rest[0])
    return int(module.execute(args))


class _Parser(argparse.ArgumentParser):
    """Argparse, with its complaints raised like every other mistake of the user."""

    def error(self, message: str) -> NoReturn:
        raise BadExperiment(what=message, next=f"see `{self.prog} --help`")

    def refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        flag = word.partition("=")[0]
        known = [s for action in self._actions for s in action.option_strings if s.startswith("--")]
        # All flags are too many for one line: the nearest alone.
        near = did_you_mean(flag, known).partition(" There is:")
        hint = f"{near[0]} " if near[1] else ""
        raise BadExperiment(what=f"no flag named {flag!r}", next=f"{hint}See `{self.prog} --help`")


def _help() -> str:
    lines = ["usage: tunemark COMMAND [ARGUMENTS]", "", "How many tokens per second does fine-tuning reach?", ""]
    lines += [f"  {name:<8} {description}" for name, (_, description) in _COMMANDS.items()]
    return "\n".join([*lines, "", "`tunemark COMMAND --help` tells more; `tunemark --version` the version."])


if __name__ == "__main__":
    sys.exit(main())
