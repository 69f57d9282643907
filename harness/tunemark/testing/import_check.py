"""Imports one plugin and calls its hooks in this process: `python -m tunemark.testing.import_check ANSWERS VALUE`.

Imports of heavy packages such as torch are refused and recorded with the importing line; output is measured on this
process's standard output.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.metadata
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

# Before the plugin, so that its import time does not count.
from tunemark.plugin import hooks

HEAVY = ("torch", "transformers", "datasets", "peft", "tensorflow", "jax")
# Hooks that offer something are called without arguments.
HOOKS = [
    name
    for name, hook in vars(hooks).items()
    if name.startswith("tunemark_") and not inspect.signature(hook).parameters
]


class _HeavyImportFinder(importlib.abc.MetaPathFinder):
    """Refuses heavy modules and records the importing lines."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name not in HEAVY:
            return
        lines = [f for f in traceback.extract_stack() if not f.filename.startswith("<") and f.filename != __file__]
        at = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else "unknown"
        self.asked.append(f"{name} ({at})")
        raise ImportError(f"{name} must not be imported by a plugin's facts; a runtime may")


def main(answers: str, value: str) -> int:
    """Write the findings into the JSON file `answers`; value: the entry point's value."""
    found: dict[str, Any] = {"failure": None, "seconds": {}, "printed": {}, "heavy": [], "plugin": value}
    refusal = _HeavyImportFinder()
    sys.meta_path.insert(0, refusal)
    printed = _stdout_bytes()
    start_s = time.perf_counter()
    plugin: Any = None
    try:
        plugin = importlib.metadata.EntryPoint(name="x", value=value, group="tunemark").load()
    except BaseException as error:  # third-party code
        found["failure"] = f"{type(error).__name__}: {error}"
    found["seconds"]["import"] = time.perf_counter() - start_s
    found["printed"]["import"] = _stdout_bytes() - printed
    for hook in HOOKS if plugin is not None else ():
        function = getattr(plugin, hook, None)
        if not callable(function):
            continue
        printed, start_s = _stdout_bytes(), time.perf_counter()
        try:
            given = function()
            # The body of a generator runs only now.
            if not isinstance(given, (str, bytes, Mapping, Sequence)):
                list(given)
        except BaseException as error:
            found.setdefault("hooks", {})[hook.removeprefix("tunemark_")] = f"{type(error).__name__}: {error}"
        found["seconds"][hook] = time.perf_counter() - start_s
        found["printed"][hook] = _stdout_bytes() - printed
    found["heavy"] = refusal.asked
    with open(answers, "w", encoding="utf-8") as file:
        json.dump(found, file)
    return 0


def _stdout_bytes() -> int:
    """Bytes written to standard output so far."""
    sys.stdout.flush()
    return os.fstat(1).st_size


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
