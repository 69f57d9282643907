"""`tunemark open`: open a report's page in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from tunemark.cli.messages import print_message
from tunemark.errors import BadStore

_PAGE = "report.html"

EXAMPLES = (
    ("tunemark open", "the newest report in this folder and the folders in it"),
    ("tunemark open out", "the report in out/"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "folder of a report (default: the newest in this folder and the folders in it)"
    parser.add_argument("folder", nargs="?", metavar="DIR", help=words)


def execute(args: argparse.Namespace) -> int:
    page = find_page(None if args.folder is None else Path(args.folder))
    print(page)
    if not webbrowser.open(page.absolute().as_uri()):
        print_message("there is no browser here; the page is one file, which can be copied")
    return 0


def find_page(folder: Path | None) -> Path:
    """The page of the report in a folder, or the newest one in this folder and the folders in it. Raises `BadStore`."""
    pages = [*Path().glob(_PAGE), *Path().glob(f"*/{_PAGE}")] if folder is None else [folder / _PAGE]
    there = [page for page in pages if page.is_file()]
    if not there:
        raise BadStore(
            what=f"there is no {pages[0] if pages else _PAGE}",
            next="`tunemark run -o DIR` and `tunemark report RUNS -o DIR` write one",
        )
    return max(there, key=lambda page: page.stat().st_mtime)
