"""`tunemark gate`: has a run become slower than its baseline? Exit code 0 pass, 1 fail, 3 no verdict."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.atomic_write import write_atomically
from tunemark.cli.messages import print_json
from tunemark.cli.run_arguments import RUNS_HELP, add_seal_argument, read_all_runs, refuse_touched
from tunemark.cli.terminal import print_result
from tunemark.errors import BadStore
from tunemark.exit_codes import ExitCode
from tunemark.plugin import Catalog

# Slow-downs that are reported for a baseline alone, besides --change.
_CHANGES = (0.01, 0.02, 0.05, 0.1)

EXAMPLES = (
    ("tunemark gate --baseline baseline runs", "is anything 5 % slower?"),
    ("tunemark gate --baseline baseline --change 2", "how small a slow-down can be found?"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark gate [OPTIONS] --baseline DIR [RUNS...]"
    words = f"{RUNS_HELP}; without any, print which slow-downs the baseline's noise allows to detect"
    parser.add_argument("runs", nargs="*", metavar="RUNS", help=words)
    words = "runs to compare with, every series of them"
    parser.add_argument("--baseline", action="append", required=True, metavar="DIR", help=words)
    for flag, default, words in (
        ("--change", 5, "slow-down to detect"),
        ("--power", 80, "probability of detecting it"),
        ("--false-alarms", 5, "probability of failing when nothing is slower"),
    ):
        words = f"{words} (default {default})"
        parser.add_argument(flag, type=_parse_percentage, default=default / 100, metavar="PERCENT", help=words)
    words = "judge although this field differs, or despite heavy-load; the output names it"
    parser.add_argument("--despite", action="append", default=[], metavar="FIELD", help=words)
    add_seal_argument(parser)
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML to FILE")
    parser.add_argument("--comment", metavar="FILE", help="write a Markdown comment for a pull request to FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.analysis.gate import GateCriteria, compute_sensitivities, gate
    from tunemark.report.gate import gate_comment, gate_junit, gate_text, outlook_text

    despite = [name for each in args.despite for name in each.split(",") if name]
    catalog = Catalog()
    promise = GateCriteria(change=args.change, power=args.power, false_alarms=args.false_alarms)
    baseline = read_all_runs(args.baseline, catalog, every_series=True)
    runs = read_all_runs(args.runs, catalog)
    if not args.despite_seal:
        refuse_touched([*baseline, *runs])
    if not args.runs:
        changes = sorted({*_CHANGES, args.change})
        forecasts = compute_sensitivities(baseline, changes, promise, despite=despite)
        if args.json:
            print_json(msgspec.json.encode(forecasts).decode())
        else:
            print_result(outlook_text(forecasts, promise.power, promise.false_alarms))
        return ExitCode.SUCCESS if all(one.noise is not None for one in forecasts) else ExitCode.UNKNOWN
    found = gate(baseline, runs, promise, despite=despite)
    for path, content in ((args.junit, gate_junit), (args.comment, gate_comment)):
        if path is not None:
            _write(Path(path), content(found))
    if args.json:
        print_json(msgspec.json.encode(found).decode())
    else:
        print_result(gate_text(found))
    codes = {"pass": ExitCode.SUCCESS, "fail": ExitCode.INVALID, "no verdict": ExitCode.UNKNOWN}
    return codes[found.verdict]


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise BadStore(what=f"cannot write {path}", why=str(error), next="name a file that you may write") from error


def _parse_percentage(text: str) -> float:
    try:
        fraction = float(text.removesuffix("%")) / 100
    except ValueError:
        fraction = 0.0
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage between 0 and 100")
    return fraction
