"""`tunemark manual`: the manual page in man's format, made of the parsers that also make every help text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

from tunemark import __version__
from tunemark.exit_codes import ExitCode

EXAMPLES = (
    ("tunemark manual | man -l -", "read it"),
    ("tunemark manual > ~/.local/share/man/man1/tunemark.1", "then `man tunemark`"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def execute(args: argparse.Namespace) -> int:
    from tunemark.cli.main import list_commands, make_parser

    print("\n".join(make_manual([(name, *make_parser(name)) for name in list_commands()])))
    return 0


def make_manual(commands: Sequence[tuple[str, Sequence[tuple[str, str]], argparse.ArgumentParser]]) -> Iterator[str]:
    """The lines of the page. commands: name, examples and parser of each."""
    yield f'.TH TUNEMARK 1 "" "tunemark {__version__}" "User Commands"'
    yield from (".SH NAME", "tunemark \\- measures how many tokens per second fine-tuning reaches")
    yield from (".SH SYNOPSIS", ".B tunemark", "COMMAND [ARGUMENTS]")
    yield ".SH COMMANDS"
    for name, _, parser in commands:
        yield from (".TP", f".B {_escape(name)}", _escape(parser.description or ""))
    for name, examples, parser in commands:
        yield f'.SH "TUNEMARK {_escape(name.upper())}"'
        yield from (_escape(parser.description or "") + ".", ".PP", ".nf", _escape(_usage(parser)), ".fi")
        for group in parser._action_groups:
            actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            if actions:
                yield f".SS {_escape(group.title or '')}"
            for action in actions:
                yield from (".TP", _signature(action), _escape(_help(parser, action)))
        yield ".SS examples"
        for command, meaning in examples:
            yield from (".TP", f".B {_escape(command)}", _escape(meaning))
    yield ".SH EXIT STATUS"
    for code in ExitCode:
        yield from (".TP", f".B {int(code)}", code.name.lower().replace("_", " "))


def _usage(parser: argparse.ArgumentParser) -> str:
    if parser.usage:
        return parser.usage
    places = [str(action.metavar or action.dest) for action in parser._positionals._group_actions]
    return " ".join([parser.prog, *places, "[OPTIONS]"])


def _signature(action: argparse.Action) -> str:
    if not action.option_strings:
        return f".I {_escape(str(action.metavar or action.dest))}"
    value = "" if action.nargs == 0 else f" \\fI{_escape(str(action.metavar or action.dest.upper()))}\\fR"
    return ", ".join(f"\\fB{_escape(flag)}\\fR" for flag in action.option_strings) + value


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _escape(text: str) -> str:
    """A text in which nothing is a request or an escape of roff."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"))
