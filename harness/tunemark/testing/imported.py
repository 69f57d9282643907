"""Import one plugin and call its hooks, alone in this process: `python -m tunemark.testing.imported ANSWERS VALUE`.

Torch and what is as heavy is refused here, with the line that wanted it; what is printed goes to this process's own
standard output, where the parent finds it.
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

HEAVY = ("torch", "transformers", "datasets", "peft", "tensorflow", "jax")
HOOKS = ("devices", "models", "datasets", "strategies", "launchers", "formats", "importers", "monitors")


class _Refusal(importlib.abc.MetaPathFinder):
    """Refuses heavy modules and keeps who asked."""

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
    """Write what was found into the file `answers`."""
    import tunemark.plugin  # its own time is not the plugin's

    found: dict[str, Any] = {"failure": None, "seconds": {}, "printed": {}, "heavy": [], "plugin": value}
    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    printed = _printed()
    began_s = time.perf_counter()
    plugin: Any = None
    try:
        plugin = importlib.metadata.EntryPoint(name="x", value=value, group="tunemark").load()
    except BaseException as error:  # a stranger's module is on the other side
        found["failure"] = f"{type(error).__name__}: {error}"
    found["seconds"]["import"] = time.perf_counter() - began_s
    found["printed"]["import"] = _printed() - printed
    for hook in HOOKS if plugin is not None else ():
        function = getattr(plugin, f"tunemark_{hook}", None)
        if not callable(function):
            continue
        printed, began_s = _printed(), time.perf_counter()
        try:
            given = function()
            # A generator's body runs only here.
            if not isinstance(given, (str, bytes, Mapping, Sequence)):
                list(given)
        except BaseException as error:
            found.setdefault("hooks", {})[hook] = f"{type(error).__name__}: {error}"
        found["seconds"][f"tunemark_{hook}"] = time.perf_counter() - began_s
        found["printed"][f"tunemark_{hook}"] = _printed() - printed
    found["heavy"] = refusal.asked
    assert tunemark.plugin is not None
    with open(answers, "w", encoding="utf-8") as file:
        json.dump(found, file)
    return 0


def _printed() -> int:
    """Bytes on standard output so far, whoever wrote them."""
    sys.stdout.flush()
    return os.fstat(1).st_size


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
