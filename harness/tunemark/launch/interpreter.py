"""Query the worker's interpreter for its packages without importing torch: versions from the packages' metadata."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tunemark.errors import BadExperiment

_QUERY_SCRIPT = """
import json, sys
# A user's folder named torch is not the package.
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


# Seconds for the reply: an interpreter on a cold network disk takes several.
_REPLY_TIMEOUT_S = 60


class _InterpreterReply(msgspec.Struct):
    python: str
    found: dict[str, bool]
    versions: dict[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """An interpreter and the versions of the packages that the run needs (None if metadata does not say)."""

    path: str
    python: str
    versions: dict[str, str | None]


def query_interpreter(path: str, requires: Sequence[str]) -> Interpreter:
    """Query the interpreter at `path`; BadExperiment if it does not work or lacks a required module."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    command = [path, "-c", _QUERY_SCRIPT, *requires]
    reply = None
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_REPLY_TIMEOUT_S, env=environment)
        output = (process.stderr or process.stdout).strip()[-500:]
        reason = f"it ended with code {process.returncode}" + (f": {output}" if output else " and no output")
        if process.returncode == 0:
            reply = msgspec.json.decode(process.stdout, type=_InterpreterReply)
    except subprocess.TimeoutExpired:
        reason = f"it did not answer in {_REPLY_TIMEOUT_S} s"
    except OSError as error:
        reason = error.strerror or str(error)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        reason = f"it does not answer as Python does: {output!r}" if output else "it printed nothing"
    if reply is None:
        raise BadExperiment(
            what=f"cannot ask the interpreter {path}", why=reason, next="give --python a working Python"
        )
    missing = [name for name in requires if not reply.found.get(name)]
    if missing:
        raise BadExperiment(
            what=f"{path} lacks {', '.join(missing)}",
            why="the run needs it in the interpreter that trains; nothing is installed into it for you",
            next=f"{path} -m pip install {' '.join(missing)}",
        )
    return Interpreter(path=path, python=reply.python, versions=reply.versions)


def check_versions(interpreter: Interpreter, needs: Mapping[str, str], what: str) -> None:
    """BadExperiment if a module is older than the version in `needs`; one of unknown version is accepted."""
    for module, minimum in needs.items():
        version = interpreter.versions.get(module)
        if version is not None and _parse_numbers(version) < _parse_numbers(minimum):
            raise BadExperiment(
                what=f"{what} needs {module} {minimum} or newer",
                why=f"{interpreter.path} has {module} {version}",
                next=f"{interpreter.path} -m pip install '{module}>={minimum}', another --python, or another strategy",
            )


def _parse_numbers(version: str) -> list[int]:
    """The leading numbers of a version: [2, 13, 0] for 2.13.0+cpu."""
    return [int(number) for number in re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])]
