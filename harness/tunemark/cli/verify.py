"""`tunemark verify`: are stored runs and reports what they were when they were written, and who signed them?

Exit code 0 whole, 1 touched or a signature that does not fit, 3 unsealed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadStore
from tunemark.exit_codes import ExitCode

EXAMPLES = (
    ("tunemark verify runs report", "whether a store and a report are what was written"),
    ("tunemark verify runs --sign ~/.ssh/id_ed25519", "sign every seal that is whole"),
    ("tunemark verify runs --allowed-signers signers", "who signed, of those who may"),
)
_CODES = {"whole": ExitCode.SUCCESS, "touched": ExitCode.INVALID, "unsealed": ExitCode.UNKNOWN}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store, or a report folder written by -o")
    parser.add_argument("--sign", metavar="KEY", help="sign every whole seal with this ssh key, by ssh-keygen -Y sign")
    words = "file of the keys whose signatures count, as ssh-keygen(1) describes it; without it any key does"
    parser.add_argument("--allowed-signers", metavar="FILE", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each attempt or report")


def execute(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    import msgspec

    from tunemark.markdown import markdown_table
    from tunemark.report.verification import sign_folder, verify_folder
    from tunemark.results.seal import worst_state

    allowed = Path(args.allowed_signers) if args.allowed_signers else None
    for path, what in ((allowed, "file of allowed signers"), (Path(args.sign) if args.sign else None, "key")):
        if path is not None and not path.is_file():
            raise BadStore(what=f"there is no {what} {path}", next="see ssh-keygen(1), ALLOWED SIGNERS and -Y sign")
    rows = []
    for name in args.folders:
        if not Path(name).is_dir():
            raise BadStore(what=f"there is no folder {name}", next="give a store (runs) or a report folder")
        if args.sign:
            print_message(f"{sign_folder(Path(name), Path(args.sign))} seals of {name} are signed with {args.sign}")
        rows += verify_folder(Path(name), allowed)
    if args.json:
        for row in rows:
            print_json(msgspec.json.encode(row).decode())
    else:
        table = [[row.place, row.part, row.state, row.signer or "", "; ".join(row.problems)] for row in rows]
        print_result(markdown_table(["run or report", "attempt", "state", "signed by", "why"], table, "<"))
    return _CODES[worst_state(row.state for row in rows)]
