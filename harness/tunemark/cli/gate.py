"""`tunemark gate`: has a run become slower than its baseline? Exit code 0 pass, 1 fail, 3 no verdict."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tunemark.cli.folders import HELP, once, runs_in
from tunemark.errors import BadStore
from tunemark.plugin import Catalog

# What a baseline alone is asked about, besides --change.
_CHANGES = (0.01, 0.02, 0.05, 0.1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark gate [OPTIONS] --baseline DIR [RUNS...]"
    parser.add_argument(
        "runs", nargs="*", metavar="RUNS", help=f"{HELP}; without any, what the baseline's noise allows"
    )
    parser.add_argument(
        "--baseline", action="append", required=True, metavar="DIR", help="runs to be held to, every series of them"
    )
    parser.add_argument(
        "--change", type=_share, default=0.05, metavar="PERCENT", help="slow-down to be seen (default 5)"
    )
    parser.add_argument(
        "--power", type=_share, default=0.8, metavar="PERCENT", help="probability with which it is (default 80)"
    )
    parser.add_argument(
        "--false-alarms", type=_share, default=0.05, metavar="PERCENT",
        help="probability of failing where nothing is slower (default 5)",
    )  # fmt: skip
    parser.add_argument(
        "--despite",
        action="append",
        default=[],
        metavar="FIELD",
        help="judge though this field differs, or heavy-load; say so",
    )
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML there")
    parser.add_argument("--comment", metavar="FILE", help="write a Markdown comment for a pull request there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.analysis.gate import Promise, gate, outlooks
    from tunemark.report.verdicts import gate_comment, gate_junit, gate_text, outlook_text

    despite = [name for each in args.despite for name in each.split(",") if name]
    catalog = Catalog()
    promise = Promise(change=args.change, power=args.power, false_alarms=args.false_alarms)
    baseline = once([result for name in args.baseline for result in runs_in(name, catalog, every_series=True)])
    if not args.runs:
        changes = sorted({*_CHANGES, args.change})
        ahead = outlooks(baseline, changes, promise, despite=despite)
        if args.json:
            print(msgspec.json.encode(ahead).decode())
        else:
            print(outlook_text(ahead, promise.power, promise.false_alarms))
        return 0 if all(one.noise is not None for one in ahead) else 3
    runs = once([result for name in args.runs for result in runs_in(name, catalog)])
    found = gate(baseline, runs, promise, despite=despite)
    for path, content in ((args.junit, gate_junit), (args.comment, gate_comment)):
        if path is not None:
            _write(Path(path), content(found))
    print(msgspec.json.encode(found).decode() if args.json else gate_text(found))
    return {"pass": 0, "fail": 1, "no verdict": 3}[found.verdict]


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise BadStore(what=f"cannot write {path}", why=str(error), next="name a file that you may write") from error


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage between 0 and 100")
    return share
