"""`tunemark COMMAND`: imports only that command's module, prints user errors, and ends with an exit code.

The exit codes are those of `tunemark.exit_codes`.
"""

from __future__ import annotations

import argparse
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from tunemark.cli.messages import print_message
from tunemark.cli.terminal import print_as_markdown
from tunemark.errors import BadExperiment, TunemarkError, did_you_mean
from tunemark.exit_codes import ExitCode

_COMMANDS = {
    "run": ("run", "measure every run of an experiment"),
    "scale": ("scale", "measure strong or weak scaling over sizes, with a fitted law"),
    "ladder": ("ladder", "measure what each rung of a recipe is worth, from plain to tuned"),
    "fit": ("fit", "find the largest micro-batch that fits in memory, and the fastest one"),
    "plan": ("plan", "print every run of an experiment and its cost, without running it"),
    "predict": ("predict", "predict the step time and memory of an experiment or of published rows"),
    "calibrate": ("calibrate", "measure the constants of a device for predictions"),
    "doctor": ("doctor", "find what would spoil a measurement on this machine, and how to mend it"),
    "show": ("show", "print everything about one run"),
    "open": ("open_report", "open the last report in the browser"),
    "list": ("listing", "print what is installed (models, devices, ...), or the runs of a store"),
    "schema": ("schema", "print the JSON Schema of what tunemark reads and writes"),
    "report": ("report", "write a report of finished runs"),
    "share": ("share", "draw the answer of finished runs as one picture or page"),
    "export": ("export", "copy finished runs to TensorBoard, MLflow, W&B, Parquet, SQLite, ..."),
    "query": ("query", "ask finished runs by SQL"),
    "verify": ("verify", "say whether stored runs and reports are what was written"),
    "clean": ("clean", "list what is left over or can be made again, with sizes, and remove it"),
    "compare": ("compare", "compare the rates of comparable runs"),
    "new": ("new", "create a plugin to start from: a model, a dataset, a device or a trainer; or a CI workflow"),
    "trainers": ("trainers", "install or remove an interpreter for another program's training loop"),
    "check": ("check", "run the conformance checks on a plugin"),
    "why": ("why", "list what differs between two runs, ranked by how much it can matter"),
    "gate": ("gate", "decide whether runs are slower than a baseline: pass, fail or no verdict"),
    "audit": ("audit", "check the rates that a log, a table or a running program claims"),
    "manual": ("manual", "print the manual page, for man"),
    "completion": ("completion", "print the script that completes commands in bash, zsh or fish"),
}
# What other tools call our flags, where the nearest name in letters is another one.
_OTHER_TOOLS = {
    "--batch-size": "'--micro-batch' (a forward pass) or '--global-batch' (a step)",
    "--per-device-train-batch-size": "'--micro-batch'",
    "--seq": "'--sequence'",
    "--seq-len": "'--sequence'",
    "--seq-length": "'--sequence'",
    "--max-length": "'--sequence'",
    "--bs": "'--micro-batch' (a forward pass) or '--global-batch' (a step)",
    "--ctx": "'--sequence'",
    "--pin": "'--thread-binding'",
    "--cpu-offload": "'--activations host'",
    "--activation-offload": "'--activations host'",
    "--lr": "'--learning-rate'",
    "--gpus": "'--device cuda:N'",
    "--num-gpus": "'--device cuda:N'",
    "--world-size": "'--size'",
    "--nproc-per-node": "'--device cuda:N'",
    "--max-steps": "'--steps'",
    "--max-seq-len": "'--sequence'",
    "--max-seq-length": "'--sequence'",
    "--context-length": "'--sequence'",
    "--per-device-batch-size": "'--micro-batch'",
    "--train-batch-size": "'--global-batch'",
    "--gradient-accumulation-steps": "'--global-batch', which divided by --micro-batch and the ranks gives it",
    "--grad-accum": "'--global-batch', which divided by --micro-batch and the ranks gives it",
    "--gradient-checkpointing": "'--checkpointing full'",
    "--num-train-epochs": "'--epochs'",
    "--num-epochs": "'--epochs'",
    "--lora": "'--method lora'",
    "--peft": "'--method lora'",
    "--packing": "'--batching pack'",
    "--optim": "'--optimizer'",
    "--bf16": "'--precision bf16' or '--precision bf16-autocast'",
    "--fp32": "'--precision fp32'",
    "--model-name-or-path": "'--model hf:FOLDER'",
    "--data": "'--dataset'",
    "--out": "'--output'",
    "--dtype": "'--precision'",
    "--output-dir": "'--output'",
}
_FIRST_COMMANDS = (
    ("tunemark plan --model mistral-7b", "what a run is and costs, without running it"),
    ("tunemark run -o report", "measure a small model here, for about a minute, and write a report"),
    ("tunemark list models", "what is installed; `list devices`, `list datasets`, ..."),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        # Nothing that commands read has circles, and looking for some among thousands of runs takes half the time.
        gc.set_threshold(100_000, 50, 50)
    _prepare_streams()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        from tunemark.cli.completion import complete

        complete(os.environ.get("COMP_LINE", "").split()[1:2], _make_full_parser)
    try:
        code = _command(words)
        sys.stdout.flush()
    except TunemarkError as error:
        print_message(f"tunemark: {error}")
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Output still buffered would raise again when the interpreter closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and _is_output_lost(error):
            print(f"tunemark: cannot write to standard output: {error}; what was measured is kept", file=sys.stderr)
            return ExitCode.USAGE
        # Not 1: that a figure is invalid or slower than its baseline is another matter.
        import traceback

        print_message(traceback.format_exc().rstrip("\n"))
        print_message("tunemark: this is an error in tunemark or in a plugin, please report it")
        return ExitCode.INTERNAL
    return code


def _is_output_lost(error: OSError) -> bool:
    """Whether standard output takes nothing any more, as on a full disk; it is then given up. What fails to open or to
    write a file of ours says which."""
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
        return False
    # The rest would be written once more when the interpreter closes the stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _prepare_streams() -> None:
    """Let no terminal or pipe end a measurement: a character that it cannot show is escaped, and one that is closed
    takes nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _command(words: list[str]) -> int:
    if not words:
        print(_help(), file=sys.stderr)
        return ExitCode.USAGE
    if words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("--version", "-V", "version"):
        from tunemark import __version__

        print(f"tunemark {__version__}")
        return 0
    if words[0] not in _COMMANDS:
        raise BadExperiment(
            what=f"no command named {words[0]!r}", why="a command comes first", next=did_you_mean(words[0], _COMMANDS)
        )
    module, parser = _make_parser(words[0])
    arguments, command = words[1:], []
    if getattr(module, "TAKES_COMMAND", False) and "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    try:
        args, rest = parser.parse_known_args(arguments, argparse.Namespace(command=command))
    except SystemExit as end:  # --help
        return int(end.code or 0)
    if rest:
        parser.reject(rest[0])
    if args.markdown:
        print_as_markdown()
    return int(module.execute(args))


def list_commands() -> list[str]:
    """The names of all commands, in the order of the help."""
    return list(_COMMANDS)


def make_parser(command: str) -> tuple[Sequence[tuple[str, str]], argparse.ArgumentParser]:
    """The examples and the parser of a command."""
    module, parser = _make_parser(command)
    return module.EXAMPLES, parser


def _make_parser(command: str) -> tuple[ModuleType, _CommandParser]:
    """The module and the parser of one command, which is the only one that is imported."""
    name, description = _COMMANDS[command]
    module = importlib.import_module(f"tunemark.cli.{name}")
    parser = _CommandParser(
        prog=f"tunemark {command}",
        description=description,
        epilog=_format_examples(module.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    markdown = "print tables as Markdown on a terminal too, as they are printed into a pipe"
    parser.add_argument("--markdown", action="store_true", help=markdown)
    return module, parser


def _format_examples(examples: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["examples:", *(f"  {command}\n      {meaning}" for command, meaning in examples)])


def _make_full_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of all commands for completion, of which only the one that is being typed has its flags."""
    parser = argparse.ArgumentParser(prog="tunemark", allow_abbrev=False)
    commands = parser.add_subparsers()
    for command, (_, description) in _COMMANDS.items():
        sub = commands.add_parser(command, help=description, add_help=False)
        if command in words:
            importlib.import_module(f"tunemark.cli.{_COMMANDS[command][0]}").add_arguments(sub)
    return parser


class _CommandParser(argparse.ArgumentParser):
    """An argparse parser that raises `BadExperiment` for bad arguments."""

    def error(self, message: str) -> NoReturn:
        raise BadExperiment(what=message, next=f"see `{self.prog} --help`")

    def reject(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        flag = word.partition("=")[0]
        known = [s for action in self._actions for s in action.option_strings if s.startswith("--")]
        # There are too many flags for one line: suggest only the nearest.
        near = did_you_mean(flag, known).partition(" There is:")
        hint = f"{near[0]} " if near[1] else ""
        if flag in _OTHER_TOOLS and "--micro-batch" in known:
            hint = f"did you mean {_OTHER_TOOLS[flag]}? "
        raise BadExperiment(what=f"no flag named {flag!r}", next=f"{hint}See `{self.prog} --help`")


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = ["usage: tunemark COMMAND [ARGUMENTS]", "", "How many tokens per second does fine-tuning reach?", ""]
    lines += [f"  {name:<{width}}  {description}" for name, (_, description) in _COMMANDS.items()]
    lines += ["", "begin with:", *(f"  {command:<34} {meaning}" for command, meaning in _FIRST_COMMANDS)]
    return "\n".join(
        [*lines, "", "See `tunemark COMMAND --help` for its options and examples, and `tunemark --version`."]
    )


if __name__ == "__main__":
    sys.exit(main())
