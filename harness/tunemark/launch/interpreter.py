"""What the worker's interpreter has, asked without importing torch: versions from the packages' metadata."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tunemark.errors import BadExperiment

_QUESTION = """
import json, sys, importlib.util
try:
    from importlib import metadata
except ImportError:
    metadata = None
def version(name):
    try:
        return metadata.version(name) if metadata else None
    except Exception:
        return None
names = sys.argv[1:]
print(json.dumps({
    "python": sys.version.split()[0],
    "implementation": sys.implementation.name,
    "found": {n: importlib.util.find_spec(n) is not None for n in names},
    "versions": {n: version(n) for n in names},
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """An interpreter and the versions of what the run needs in it (None: no metadata says)."""

    path: str
    python: str
    versions: dict[str, str | None]


def examine(path: str, requires: Sequence[str]) -> Interpreter:
    """Ask the interpreter at `path` what it has; refuse it where a required module is missing."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [path, "-c", _QUESTION, *requires], capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise BadExperiment(
            what=f"cannot ask the interpreter {path}", why=detail.strip()[-500:], next="give --python a working Python"
        ) from error
    missing = [name for name in requires if not answer["found"][name]]
    if missing:
        raise BadExperiment(
            what=f"{path} lacks {', '.join(missing)}",
            why="the model's runtime needs it in the interpreter that trains; nothing is installed into it for you",
            next=f"{path} -m pip install {' '.join(missing)}",
        )
    return Interpreter(path=path, python=answer["python"], versions=answer["versions"])
