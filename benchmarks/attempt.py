"""Runs one attempt of the harness through its command line, for the other scripts in this folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A time budget in seconds that no fixed number of steps reaches.
_BUDGET_S = "1000000"


def attempt(words: Sequence[str], *, warmup: int, steps: int, store: Path) -> dict[str, Any]:
    """The result of `tunemark run WORDS` with one new attempt of a fixed number of steps, without measuring a peak.

    Exits with the end of the harness's stderr if there is no rate over exactly these steps.
    """
    fixed = ["--repeats", "1", "--redo", "--no-measure-peak", "--target-interval", "0", "--budget", _BUDGET_S]
    counted = ["--warmup", str(warmup), "--steps", str(steps), "--store", str(store), "--json"]
    command = [sys.executable, "-m", "tunemark", "run", *words, *fixed, *counted]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if len(lines) != 1:
        raise SystemExit(f"{' '.join(command)} gave {len(lines)} results\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[0])
    if result["status"] != "ok" or result["tokens_per_s"] is None:
        raise SystemExit(f"{' '.join(command)} ended {result['status']}\n{done.stderr[-2000:]}")
    found = (result["warmup_steps"], result["steps_measured"])
    if found != (warmup, steps):
        raise SystemExit(f"{warmup} + {steps} steps were asked for, the result is of {found[0]} + {found[1]}")
    return result


def noticed(result: dict[str, Any]) -> str:
    """The verdict and the rules of all findings above the severity note."""
    rules = [finding["rule"] for finding in result["findings"] if finding["severity"] != "note"]
    return " ".join([result["verdict"], *rules])
