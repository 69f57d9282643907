"""`tunemark schema`: the JSON Schema of what tunemark writes and reads."""

from __future__ import annotations

import argparse
import json

from tunemark.experiment import json_schema as experiment_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "result: a line of runs.jsonl or of --json (default); experiment: a TOML file; scaling: of `scale --json`"
    parser.add_argument("what", nargs="?", choices=("result", "experiment", "scaling"), default="result", help=words)


def execute(args: argparse.Namespace) -> int:
    if args.what == "experiment":
        print(json.dumps(experiment_schema(), indent=1))
        return 0
    if args.what == "scaling":
        import msgspec  # heavy, and not needed by --help

        from tunemark.analysis.scaling import Scaling

        draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        print(json.dumps({**draft, **msgspec.json.schema(Scaling)}, indent=1))
        return 0
    from tunemark.results import json_schema as result_schema  # heavy, and not needed by --help

    print(json.dumps(result_schema(), indent=1))
    return 0
