"""`tunemark compare`: compare the rates of comparable runs, each ratio with its interval."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.cli.messages import print_json
from tunemark.cli.run_arguments import RUNS_HELP, add_seal_argument, read_runs, read_runs_or_claims, refuse_touched
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.exit_codes import ExitCode, exit_code_of_results
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.results import ImportedClaim

EXAMPLES = (
    ("tunemark compare runs:1f3a runs:90bc", "two runs"),
    ("tunemark compare --by strategy --baseline none runs", "runs that differ in the strategy only"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark compare [OPTIONS] A B | --by AXIS[,AXIS] DIR..."
    parser.add_argument("folders", nargs="+", metavar="DIR", help=RUNS_HELP)
    words = "compare runs that differ only in this: strategy, size, python, batching, ..."
    parser.add_argument("--by", metavar="AXIS", help=words)
    parser.add_argument("--baseline", metavar="VALUE", help="the axis value that all others are compared with")
    words = "compare although this field differs; the output names it"
    parser.add_argument("--despite", action="append", default=[], metavar="FIELD", help=words)
    add_seal_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.analysis.compare import compare, compare_by
    from tunemark.report.comparison import comparison_text

    despite = [name for each in args.despite for name in each.split(",") if name]
    catalog = Catalog()
    if args.by is None:
        if len(args.folders) != 2 or args.baseline is not None:
            raise BadExperiment(
                what=f"{len(args.folders)} folders to compare" if args.baseline is None else "--baseline without --by",
                why="without --by, the second of two is compared with the first",
                next="give two folders, or --by strategy",
            )
        a, b = (read_runs(name, catalog) for name in args.folders)
        results = [*a, *b]
        if not args.despite_seal:
            refuse_touched(results)
        found = compare(a, b, despite=despite, names=(args.folders[0], args.folders[1]))
    else:
        results, claims = read_runs_or_claims(args.folders, catalog)
        if not results:
            return _print_claims(claims, args.by, as_json=args.json)
        if not args.despite_seal:
            refuse_touched(results)
        found = compare_by(results, [name for name in args.by.split(",") if name], despite=despite,
                           baseline=args.baseline)  # fmt: skip
    if args.json:
        print_json(msgspec.json.encode(found).decode())
    else:
        print_result(comparison_text(found))
    is_open = any(row.outcome == "no interval" for group in found.groups for row in group.rows)
    return exit_code_of_results(results) or (ExitCode.UNKNOWN if is_open else ExitCode.SUCCESS)


def _print_claims(claims: Sequence[ImportedClaim], by: str, *, as_json: bool) -> int:
    """Print the ratios of published figures; returns the exit code."""
    import msgspec

    from tunemark.analysis.claim_scaling import compare_claims
    from tunemark.report.claim_scaling_text import claim_ratio_text

    found = compare_claims(claims, by)
    if not found:
        raise BadExperiment(
            what=f"no two of these {len(claims)} imported claims differ in {by} alone", next="name another axis by --by"
        )
    print_json(msgspec.json.encode(found).decode()) if as_json else print_result(claim_ratio_text(found, by))
    return ExitCode.SUCCESS
