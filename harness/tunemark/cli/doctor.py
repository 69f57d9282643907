"""`tunemark doctor`: what would spoil a measurement on this machine, and how to mend it. Nothing is changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.exit_codes import ExitCode

if TYPE_CHECKING:
    from tunemark.doctor import Diagnosis

EXAMPLES = (
    ("tunemark doctor", "before a measurement: other load, clocks, limits, memory, versions"),
    ("tunemark doctor --seconds 10 --json", "watch the machine for longer, for a program"),
    ("tunemark doctor --overhead", "what the harness itself costs here"),
)

# Alternating pairs of the harness and of a plain loop.
_PAIRS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--python", metavar="PATH", help="the interpreter that trains (default: this one)")
    parser.add_argument("--store", metavar="DIR", default="runs", help="where attempts will be stored (default: runs)")
    parser.add_argument("--seconds", metavar="X", default="1", help="how long the machine is watched (default: 1)")
    words = "also measure what the harness itself costs, against the same training in a plain loop: some minutes"
    parser.add_argument("--overhead", action="store_true", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object per check")


def execute(args: argparse.Namespace) -> int:
    seconds = _parse_seconds(args.seconds)
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.doctor import Machine, examine
    from tunemark.doctor.examination import PACKAGES
    from tunemark.doctor.software_checks import read_torch_build
    from tunemark.launch import query_interpreter

    versions = query_interpreter(args.python, (), PACKAGES).versions if args.python else _own_versions(PACKAGES)
    found = examine(Machine(watch_s=seconds), read_torch_build(args.python), versions, Path(args.store))
    if args.json:
        for each in found:
            print_json(msgspec.json.encode(each).decode())
    else:
        print_result(_doctor_text(found))
    if args.overhead:
        _print_overhead(is_json=args.json)
    return ExitCode.INVALID if any(each.level == "severe" for each in found) else ExitCode.SUCCESS


def _print_overhead(*, is_json: bool) -> None:
    """Measure the harness's own cost, and print it."""
    # Heavy, and only needed here.
    import msgspec

    from tunemark.plugin import Catalog
    from tunemark.report.estimate_format import format_ratio
    from tunemark.runner.interruption import sigterm_as_interrupt
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.overhead import measure_overhead

    with sigterm_as_interrupt():
        found = measure_overhead(_PAIRS, Catalog(), RunObserver(message=print_message))
    if is_json:
        print_json(msgspec.json.encode({"overhead": found}).decode())
        return
    parent = "unknown" if found.parent_share is None else f"{100 * found.parent_share:.2f} %"
    words = (
        f"Overhead: the harness reaches {format_ratio(found.ratio)} of the rate of the same training in a plain loop, "
    )
    words += f"of {_PAIRS} pairs; while it timed, the parent used {parent} of a core."
    print_result(words)


def _own_versions(packages: Sequence[str]) -> dict[str, str | None]:
    from tunemark_worker import interpreter_query

    return dict(interpreter_query.query(packages)["versions"])


def _doctor_text(found: Sequence[Diagnosis]) -> str:
    """A table of the checks, and a sentence that sums them up."""
    from tunemark.markdown import escape, markdown_table

    rows = [[each.level, each.check, escape(each.evidence), escape(each.remedy) or "-"] for each in found]
    table = markdown_table(["level", "check", "what was seen", "what mends it"], rows, "<")
    counts = {level: sum(each.level == level for each in found) for level in ("severe", "minor", "unknown", "fine")}
    words = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    advice = (
        "Mend what is severe before you measure." if counts["severe"] else "Nothing here would spoil a measurement."
    )
    return f"{table}\n\n{len(found)} checks: {words}. {advice}"


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise BadExperiment(
            what=f"--seconds cannot be {text!r}", why="it is a number of seconds up to 3600", next="--seconds 5"
        )
    return seconds
