"""What the worker's interpreter has, asked without importing torch: versions from the packages' metadata."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tunemark.errors import BadExperiment

_QUESTION = """
import json, sys
# A folder of the user's that is called torch is not torch.
sys.path = [p for p in sys.path if p]
import importlib.util
try:
    from importlib import metadata
except ImportError:
    metadata = None
def version(name):
    try:
        return metadata.version(name) if metadata else None
    except Exception:
        return None
def found(name):
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
names = sys.argv[1:]
print(json.dumps({
    "python": sys.version.split()[0],
    "implementation": sys.implementation.name,
    "found": {n: found(n) for n in names},
    "versions": {n: version(n) for n in names},
}))
"""


# An interpreter on a cold network disk takes seconds.
_PATIENCE_S = 60


class _Answer(msgspec.Struct):
    python: str
    found: dict[str, bool]
    versions: dict[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """An interpreter and the versions of what the run needs in it (None: no metadata says)."""

    path: str
    python: str
    versions: dict[str, str | None]


def examine(path: str, requires: Sequence[str]) -> Interpreter:
    """Ask the interpreter at `path` what it has; refuse it where a required module is missing."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    command = [path, "-c", _QUESTION, *requires]
    answer = None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, env=environment)
        said = (done.stderr or done.stdout).strip()[-500:]
        reason = f"it ended with code {done.returncode}" + (f": {said}" if said else " and said nothing")
        if done.returncode == 0:
            answer = msgspec.json.decode(done.stdout, type=_Answer)
    except subprocess.TimeoutExpired:
        reason = f"it did not answer in {_PATIENCE_S} s"
    except OSError as error:
        reason = error.strerror or str(error)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        reason = f"it does not answer as Python does: {said!r}" if said else "it said nothing"
    if answer is None:
        raise BadExperiment(
            what=f"cannot ask the interpreter {path}", why=reason, next="give --python a working Python"
        )
    missing = [name for name in requires if not answer.found.get(name)]
    if missing:
        raise BadExperiment(
            what=f"{path} lacks {', '.join(missing)}",
            why="the run needs it in the interpreter that trains; nothing is installed into it for you",
            next=f"{path} -m pip install {' '.join(missing)}",
        )
    return Interpreter(path=path, python=answer.python, versions=answer.versions)


def check_versions(interpreter: Interpreter, needs: Mapping[str, str], what: str) -> None:
    """Refuse an interpreter that has an older module than `needs` names; one whose version nobody says is tried."""
    for module, least in needs.items():
        found = interpreter.versions.get(module)
        if found is not None and _numbers(found) < _numbers(least):
            raise BadExperiment(
                what=f"{what} needs {module} {least} or newer",
                why=f"{interpreter.path} has {module} {found}",
                next=f"{interpreter.path} -m pip install '{module}>={least}', another --python, or another strategy",
            )


def _numbers(version: str) -> list[int]:
    """The numbers that a version begins with: 2.13.0+cpu is 2, 13, 0."""
    return [int(number) for number in re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])]
