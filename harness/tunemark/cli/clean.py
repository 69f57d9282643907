"""`tunemark clean`: what killed commands left over, and what can be made again. Nothing is removed without --yes."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment, BadStore, did_you_mean
from tunemark.exit_codes import ExitCode

EXAMPLES = (
    ("tunemark clean", "list what can be removed of runs/, the cache and the temporary folder"),
    ("tunemark clean runs --only attempts --yes", "remove the attempts of runs that were measured again"),
    ("tunemark clean --only cache,code --unused-days 0 --yes", "empty the cache"),
)
_KINDS = ("attempts", "half-written", "temporary", "locks", "code", "cache")
_UNUSED_DAYS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", metavar="STORE", help="stores to look into (default: runs, if there is one)"
    )
    parser.add_argument("--only", metavar="KINDS", help=f"only these kinds, separated by commas: {', '.join(_KINDS)}")
    words = f"how long nothing of the cache may have been used (default: {_UNUSED_DAYS:g})"
    parser.add_argument("--unused-days", type=float, default=_UNUSED_DAYS, metavar="DAYS", help=words)
    parser.add_argument("--yes", action="store_true", help="remove what is listed; without it nothing is removed")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.markdown import escape, markdown_table
    from tunemark.results.store import is_store
    from tunemark.runner.cleaning import find_cleanable, remove

    kinds = args.only.split(",") if args.only else list(_KINDS)
    for kind in kinds:
        if kind not in _KINDS:
            raise BadExperiment(what=f"nothing is called {kind!r} here", next=did_you_mean(kind, _KINDS))
    if not args.unused_days >= 0:
        raise BadExperiment(what=f"--unused-days cannot be {args.unused_days:g}", next="give 0 or more")
    stores = [Path(name) for name in args.folders] or [path for path in (Path("runs"),) if path.is_dir()]
    for store in stores:
        if not store.is_dir() or not (is_store(store) or not any(store.iterdir())):
            where = "give the folder of `tunemark run --store` (by default runs)"
            raise BadStore(what=f"{store} is no store", next=where)
    found = [each for each in find_cleanable(stores, unused_days=args.unused_days) if each.kind in kinds]
    failed: list[str] = []
    for each in found if args.yes else ():
        try:
            remove(each)
        except OSError as error:
            failed.append(f"{each.path} could not be removed: {error}")
    if args.json:
        for each in found:
            print_json(msgspec.json.encode(each, enc_hook=str).decode())
    elif found:
        rows = [[each.kind, escape(str(each.path)), _format_size(each.bytes), each.why] for each in found]
        print_result(markdown_table(["kind", "what", "size", "why"], rows, "<<><"))
    total = _format_size(sum(each.bytes for each in found))
    for words in failed:
        print_message(words)
    if not found:
        print_message("nothing is left over")
    elif args.yes:
        print_message(f"{len(found) - len(failed)} of {len(found)} were removed, of {total}")
    else:
        print_message(f"{len(found)} of {total}; nothing was removed: --yes does it")
    return ExitCode.USAGE if failed else ExitCode.SUCCESS


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
