"""`tunemark completion SHELL`: completes commands, flags and names in bash, zsh and fish."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_SHELLS = ("bash", "zsh", "fish")

EXAMPLES = (
    ('eval "$(tunemark completion bash)"', "for this shell; in ~/.bashrc for all"),
    ('eval "$(tunemark completion zsh)"', "in ~/.zshrc"),
    ("tunemark completion fish > ~/.config/fish/completions/tunemark.fish", "for fish"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell for which the script is printed")


def execute(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode  # only needed here

    print(shellcode(["tunemark"], shell=args.shell))
    return 0


def complete(words: Iterable[str], make_parser: Callable[[list[str]], argparse.ArgumentParser]) -> None:
    """Answer a shell that asks for completions, and end the process. words: the command line so far."""
    import argcomplete

    parser = make_parser(list(words))
    for action in _find_actions(parser):
        if completer := _COMPLETERS.get(action.dest):
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete's way to name one
    argcomplete.autocomplete(parser, always_complete_options="long")


def _find_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [each for sub in action.choices.values() for each in _find_actions(sub)]
    return found


def _complete_list(kind: str) -> Callable[..., list[str]]:
    """Completes the last of several names joined by commas with the names of a kind that is installed."""

    def complete_names(prefix: str, **_: Any) -> list[str]:
        from tunemark.plugin import Catalog  # imports every plugin

        before, comma, _last = prefix.rpartition(",")
        return [before + comma + name for name in sorted(getattr(Catalog(), kind)())]

    return complete_names


def _complete_runs(prefix: str, **_: Any) -> list[str]:
    """Completes folders, and the ids of the runs in the default store."""
    store = Path("runs")
    ids = [folder.name.rpartition("-")[2] for folder in store.glob("*-*") if folder.is_dir()] if store.is_dir() else []
    from argcomplete.completers import FilesCompleter

    return [*ids, *FilesCompleter()(prefix)]


_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "model": _complete_list("models"),
    "dataset": _complete_list("datasets"),
    "device": _complete_list("devices"),
    "strategy": _complete_list("strategies"),
    "launcher": _complete_list("launchers"),
    "folders": _complete_runs,
    "run": _complete_runs,
    "a": _complete_runs,
    "b": _complete_runs,
    "baseline": _complete_runs,
}
