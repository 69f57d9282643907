"""`tunemark check PLUGIN`: run the conformance checks on a plugin, without an accelerator or a network.

Exit code 0 if no check failed, 1 if one did, 2 if nothing has that name.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.exit_codes import ExitCode
from tunemark.markdown import markdown_table

EXAMPLES = (
    ("tunemark check my-model", "every check of the kit"),
    ("tunemark check alpaca:path=FILE", "a dataset with its options"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "plugin, its distribution, or a name that it offers; a dataset may have options"
    parser.add_argument("plugin", metavar="PLUGIN", help=words)
    parser.add_argument("--only", metavar="CHECK,...", help="run only these checks")
    words = "interpreter in which runtimes are checked and short runs train, for a device whose torch is not tunemark's"
    parser.add_argument("--python", metavar="PATH", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object: the checks and how many failed")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and needed by no other command.
    from tunemark.runner.interruption import sigterm_as_interrupt
    from tunemark.testing.check import Check
    from tunemark.testing.kit import Kit

    only = [name.strip() for name in args.only.split(",") if name.strip()] if args.only else []
    checks: list[Check] = []
    with sigterm_as_interrupt(), redirect_stdout(sys.stderr):  # only results go to standard output
        for check in Kit(args.plugin, only=only, python=args.python).checks():
            checks.append(check)
            print_message(f"{check.outcome:<7} {check.name} of {check.subject}")
    counts = {outcome: sum(c.outcome == outcome for c in checks) for outcome in ("passed", "failed", "skipped")}
    if args.json:
        print_json(json.dumps({"plugin": args.plugin, **counts, "checks": [asdict(c) for c in checks]}, indent=1))
    else:
        rows = [[c.name, c.subject, c.outcome, c.reason.replace("|", "/")] for c in checks]
        print_result(markdown_table(["check", "subject", "outcome", "reason"], rows, "<"))
        print(f"\n{args.plugin}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    return ExitCode.INVALID if counts["failed"] else ExitCode.SUCCESS
