"""How long does it take to derive the result of a run of a million steps, and in how much memory? Bars: 3 s, 500 MB.

One short attempt is measured, and its records are then continued by made ones: steps of 20 ms with a little noise, and
a window's edge and a load for each second of them, as a GPU's worker writes, or for each step (--every-step), as a
CPU's does. Seconds are those of the processor, since other programs may use the machine.

Usage: python benchmarks/long_run.py [--steps N] [--every-step]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attempt import attempt

STEP_S = 0.02
SECONDS, BYTES = 3.0, 500e6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--every-step", action="store_true", help="a window for each step")
    parser.add_argument("--attempt", type=Path, help="the folder of a stored attempt to continue, instead of a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunemark-long-") as folder:
        store = Path(folder, "store")
        if options.attempt is None:
            words = ["--model", "mistral-tiny", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "1"]
            attempt(words, warmup=1, steps=3, store=store)
        else:
            shutil.copytree(options.attempt, store / options.attempt.parent.name / options.attempt.name)
        (records,) = store.glob("*/*/records.0.jsonl")
        size = lengthen(records, options.steps, 1 if options.every_step else round(1 / STEP_S))
        print(f"{options.steps:,} steps, {size / 1e6:,.0f} MB of records", flush=True)
        child = os.fork()
        if not child:
            _derive(store)
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
    took_s, most = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    is_good = status == 0 and took_s < SECONDS and most < BYTES
    print(f"{took_s:.1f} s of the processor, {most / 1e6:,.0f} MB at most")
    print("PASS" if is_good else "SHORT", f"(bars: {SECONDS:g} s, {BYTES / 1e6:.0f} MB)")
    return not is_good


def _derive(store: Path) -> None:
    from tunemark.results import Store  # in the child alone, so that its time and memory are counted

    (result,) = Store(store).results()
    print(f"{result.steps_measured:,} steps timed, {result.tokens_per_s and result.tokens_per_s.value:.1f} tokens/s, "
          f"warm-up {result.warmup_steps}")  # fmt: skip


def lengthen(records: Path, steps: int, window: int) -> int:
    """Continue an attempt's records, without their chain and its seal; returns the bytes of the new file."""
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    for row in rows:
        row.pop("chain", None)
    step, edge, load = (next(r for r in reversed(rows) if r["kind"] == kind) for kind in ("step", "edge", "load"))
    end = rows.pop()
    made = random.Random(0)
    began_s, number, at_s = time.monotonic(), step["step"] + 1, edge["instant_s"]
    temporary = records.with_suffix(".new")
    with open(temporary, "w") as file:
        for row in rows:
            print(json.dumps(row), file=file)
        # A line with two places to fill in.
        form = (
            _line({**step, "step": "@", "instant_s": "#", "samples": []}).replace('"@"', "{}").replace('"#"', "{:.9f}")
        )
        before, between, after = form.replace("{:.9f}", "{}").split("{}")
        is_step_first = form.index("{:.9f}") > form.index('"step":{}')
        for i in range(number, steps):
            at_s += STEP_S * (1 + 0.02 * made.gauss(0, 1))
            places = (i, f"{at_s:.9f}") if is_step_first else (f"{at_s:.9f}", i)
            file.write(f"{before}{places[0]}{between}{places[1]}{after}\n")
            if (i + 1) % window == 0:
                clock = {"instant_s": at_s, "second_s": at_s, "witness_s": at_s + 1e-5, "reread_s": at_s + 2e-5}
                print(_line({**edge, **clock, "window": i, "steps": i + 1}), file=file)
                busy = {"busy_s": load["busy_s"] + i * STEP_S, "own_s": load["own_s"] + i * STEP_S}
                print(_line({**load, **busy, "instant_s": at_s + 1e-4}), file=file)
        print(_line({**end, "instant_s": at_s + 1}), file=file)
    temporary.replace(records)
    facts = json.loads((records.parent / "attempt.json").read_text())
    facts["run"]["steps_requested"] = None
    (records.parent / "attempt.json").write_text(json.dumps(facts))
    (records.parent / "seal.json").unlink(missing_ok=True)
    (records.parents[2] / "seals.jsonl").unlink(missing_ok=True)
    print(f"made in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    return records.stat().st_size


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"))


if __name__ == "__main__":
    sys.exit(main())
