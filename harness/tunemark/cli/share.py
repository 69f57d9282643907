"""`tunemark share`: the answer of finished runs as one picture, for a link, a slide or a message."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.atomic_write import write_atomically
from tunemark.cli.messages import print_message
from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog

_RENDERERS = {".png": "render_image", ".svg": "render_image_svg", ".pdf": "render_pdf", ".json": "render_badge"}

EXAMPLES = (
    ("tunemark share runs -o answer.png", "an image of 1200 x 630 pixels, as links show it"),
    ("tunemark share runs -o badge.json", "for https://shields.io/badges/endpoint-badge: the rate and its verdict"),
    ("tunemark share report -o answer.pdf --language ko", "one page of A4, in Korean"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a store (runs/), or a report folder written by -o")
    words = f"the file to write, which ends in {', '.join(_RENDERERS)}"
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=words)
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="language of the texts (default: en)")


def execute(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix not in _RENDERERS:
        raise BadExperiment(what=f"{output} names no known kind of file", next=f"let it end in {', '.join(_RENDERERS)}")
    # Heavy, and not needed by --help.
    from tunemark.cli.run_arguments import load_folders
    from tunemark.plugin.catalog import load_object
    from tunemark.report import make_report

    found = load_folders(args.folders, Catalog())
    if not found.results:
        raise BadExperiment(what=f"there are no runs in {', '.join(args.folders)}", next="`tunemark run` measures them")
    report = make_report(found.results, found.imported, found.traces, language=args.language)
    try:
        write_atomically(output, load_object(f"tunemark_formats.share:{_RENDERERS[output.suffix]}")(report))
    except OSError as error:
        raise BadExperiment(what=f"cannot write {output}", why=str(error), next="name another file by -o") from error
    print_message(f"the answer is in {output}")
    return 0
