"""`tunemark schema`: the JSON Schema of what tunemark writes and reads."""

from __future__ import annotations

import argparse
import json

from tunemark.cli.messages import print_json
from tunemark.experiment import experiment_schema as experiment_schema

# What commands print with --json: name of the schema, the command, and the type of the output.
_COMMAND_OUTPUTS = {
    "scaling": ("scale", "tunemark.analysis.scaling_types:Scaling"),
    "comparison": ("compare", "tunemark.analysis.compare:Comparison"),
    "gate": ("gate", "tunemark.analysis.gate:Gate"),
    "why": ("why", "tunemark.analysis.why:Explanation"),
}

EXAMPLES = (
    ("tunemark schema experiment", "of a TOML file of settings"),
    ("tunemark schema result", "of a line of runs.jsonl"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "result: a line of runs.jsonl or of `run --json` (default); experiment: a TOML file; "
    words += ", ".join(f"{name}: output of `{command} --json`" for name, (command, _) in _COMMAND_OUTPUTS.items())
    parser.add_argument(
        "what", nargs="?", choices=("result", "experiment", *_COMMAND_OUTPUTS), default="result", help=words
    )


def execute(args: argparse.Namespace) -> int:
    if args.what == "experiment":
        print_json(json.dumps(experiment_schema(), indent=1))
        return 0
    if args.what in _COMMAND_OUTPUTS:
        import msgspec  # heavy, and not needed by --help

        from tunemark.plugin.catalog import load_object

        draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        print_json(json.dumps({**draft, **msgspec.json.schema(load_object(_COMMAND_OUTPUTS[args.what][1]))}, indent=1))
        return 0
    from tunemark.results import result_schema as result_schema  # heavy, and not needed by --help

    print_json(json.dumps(result_schema(), indent=1))
    return 0
