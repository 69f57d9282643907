"""`tunemark why`: what differs between two runs, ranked by how much it can matter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_json
from tunemark.cli.run_arguments import RUNS_HELP, find_runs_folder, read_runs
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.exit_codes import ExitCode
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import Result
    from tunemark.results.trace import Trace

EXAMPLES = (("tunemark why runs:1f3a runs:90bc", "what differs, what matters most first"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help=RUNS_HELP)
    parser.add_argument("b", metavar="B", help="the same, for the other run")
    parser.add_argument("--json", action="store_true", help="print one JSON object per pair of runs")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.analysis.why import explain_difference
    from tunemark.report.why import why_text

    catalog = Catalog()
    a, b = read_runs(args.a, catalog), read_runs(args.b, catalog)
    is_open = False
    for one, other in _pairs(a, b, (args.a, args.b)):
        found = explain_difference(
            one,
            other,
            names=("A", "B") if args.a == args.b else (args.a, args.b),
            breakdowns=(_find_breakdown(one, a, args.a, catalog), _find_breakdown(other, b, args.b, catalog)),
            traces=(_read_run_traces(one, args.a), _read_run_traces(other, args.b)),
        )
        is_open = is_open or found.ratio is None or found.ratio.low is None
        if args.json:
            print_json(msgspec.json.encode(found).decode())
        else:
            print_result(why_text(found) + "\n")
    return ExitCode.UNKNOWN if is_open else ExitCode.SUCCESS


def _pairs(a: Sequence[Result], b: Sequence[Result], names: tuple[str, str]) -> list[tuple[Result, Result]]:
    """The one run of each side, or if there are several, those with the same run id."""
    ours, theirs = _without_breakdown(a), _without_breakdown(b)
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    pairs = [(one, other) for one in ours for other in theirs if one.run_id == other.run_id]
    if not pairs:
        sides = zip(names, (ours, theirs), strict=True)
        several = [f"{name}:{result.run_id}" for name, side in sides if len(side) > 1 for result in side]
        raise BadExperiment(
            what="`why` explains two runs, and there are several",
            why="none of them is the same run in both folders",
            next=f"name them: {', '.join(several)}",
        )
    return pairs


def _without_breakdown(results: Sequence[Result]) -> list[Result]:
    """The runs without a breakdown of their steps, or all of them if every one has it."""
    return [result for result in results if not result.breakdown] or list(results)


def _find_breakdown(result: Result, others: Sequence[Result], name: str, catalog: Catalog) -> Result | None:
    """The same run with a breakdown of its steps: itself, one of `others`, or one of the same store."""
    from tunemark.analysis.comparability import differing_settings

    if result.breakdown:
        return result
    candidates = [*others, *(read_runs(str(find_runs_folder(name)), catalog) if len(others) == 1 else ())]
    return next((o for o in candidates if o.breakdown and not differing_settings(o, result, ("breakdown",))), None)


def _read_run_traces(result: Result, name: str) -> Sequence[Trace]:
    """The raw steps of a run: those that a report kept, else all of its store."""
    from tunemark.loading import load_traces

    return load_traces([find_runs_folder(name)], [result], most_windows=sys.maxsize)[result.run_id]
