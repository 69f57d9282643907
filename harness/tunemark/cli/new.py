"""`tunemark new KIND NAME`: write a small installable distribution with a model, a dataset, a device or a trainer, or
the workflow of a CI service that runs the gate."""

from __future__ import annotations

import argparse
from pathlib import Path

from tunemark.plugin import Catalog
from tunemark.scaffold import KINDS, make_names, write_ci_files, write_files

EXAMPLES = (
    ("tunemark new model my-model", "a plugin to start from, in ./my-model"),
    ("tunemark new ci github", "a workflow that fails pull requests which are slower, and what it measures"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=f"what the plugin offers: {', '.join(KINDS)}; or ci")
    words = "name of the plugin and of what it offers, such as `my-model`; of ci: github or gitlab"
    parser.add_argument("name", metavar="NAME", help=words)
    words = "folder to write (default: ./NAME); of ci: the repository (default: .)"
    parser.add_argument("-o", "--output", metavar="FOLDER", help=words)


def execute(args: argparse.Namespace) -> int:
    if args.kind == "ci":
        for path in write_ci_files(args.name, Path(args.output or ".")):
            print(path)
        print("\nnext: `tunemark plan tunemark.toml`; docs/gate.md says how many attempts a change takes")
        return 0
    scaffold_names = make_names(args.kind, args.name, Catalog())
    folder = Path(args.output or args.name)
    for path in write_files(scaffold_names, folder):
        print(path)
    print(f"\nnext: pip install -e {folder} && tunemark check {args.name}")
    return 0
