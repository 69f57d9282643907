"""`tunemark new KIND NAME`: write a small installable distribution with a model, a dataset or a device."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.plugin import Catalog
from tunemark.scaffold import KINDS, make_names, write_files

EXAMPLES = (("tunemark new model my-model", "a plugin to start from, in ./my-model"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=f"what the plugin offers: {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="name of the plugin and of what it offers, such as `my-model`")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder to write (default: ./NAME)")


def execute(args: argparse.Namespace) -> int:
    scaffold_names = make_names(args.kind, args.name, Catalog())
    folder = Path(args.output or args.name)
    for path in write_files(scaffold_names, folder):
        print(path)
    print(f"\nnext: pip install -e {folder} && tunemark check {args.name}")
    return 0
