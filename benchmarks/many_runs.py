"""How long do 10,000 runs take to list, compare and report, and how much memory? Also where they are 2,000 scalings.

The runs are copies of one in reports/example. As plain runs each has its own seed and rate; as scalings they are five
sizes of each of RUNS / 5 models. Each command runs in a process of its own. Bars: 2 s to list and to compare, 10 s and
1 GB to report. On a machine that others use too, the seconds of processor time are judged, which are printed beside.

Usage: python benchmarks/many_runs.py [RUNS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

SIZES = (1, 2, 4, 8, 16)
LIST_S, REPORT_S, BYTES = 2.0, 10.0, 1e9


class Cost(NamedTuple):
    """What a command took: seconds on the clock and of the processor, and the most bytes it held."""

    wall_s: float
    cpu_s: float
    most_bytes: float
    code: int


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = json.loads((Path(__file__).parents[1] / "reports/example/runs.jsonl").read_text().splitlines()[0])
    is_good = True
    print("runs     as          command  wall (s)  processor (s)  memory (MB)  bar (s)")
    for shape in ("plain", "scalings"):
        with tempfile.TemporaryDirectory(prefix="tunemark-many-") as folder:
            store, output = Path(folder, "many"), Path(folder, "out")
            store.mkdir()
            with open(store / "runs.jsonl", "w") as file:
                for i in range(runs):
                    print(json.dumps(_plain(first, i, runs) if shape == "plain" else _scaling(first, i)), file=file)
            by = "seed" if shape == "plain" else "size"
            commands = {
                "list": (["list", "runs", str(store), "--json"], LIST_S),
                "compare": (["compare", str(store), "--by", by, "--json"], LIST_S),
                "report": (["report", str(store), "-o", str(output)], REPORT_S),
            }
            for name, (words, bar) in commands.items():
                cost = measure(words)
                is_met = cost.cpu_s < bar and cost.most_bytes < BYTES
                is_good = is_good and is_met and cost.code in (0, 1, 3)
                shown = f"{cost.wall_s:8.1f}  {cost.cpu_s:13.1f}  {cost.most_bytes / 1e6:11.0f}  {bar:7.0f}"
                print(f"{runs:<8,} {shape:<11} {name:<8} {shown}  {'PASS' if is_met else 'SHORT'}", flush=True)
                if cost.code not in (0, 1, 3):
                    print(f"  it ended with {cost.code}")
    return not is_good


def measure(words: list[str]) -> Cost:
    """Run `tunemark WORDS...` and measure it."""
    start_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "tunemark", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - start_s
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode)


def _plain(first: dict[str, Any], i: int, runs: int) -> dict[str, Any]:
    rate = {**first["tokens_per_s"], "value": first["tokens_per_s"]["value"] * (1 + i / runs / 1000)}
    return {**first, "run_id": f"{i:016x}", "seed": i, "tokens_per_s": rate}


def _scaling(first: dict[str, Any], i: int) -> dict[str, Any]:
    """Of model i // 5, at a size where it is 90 % as efficient as at half of it."""
    size = SIZES[i % len(SIZES)]
    factor = size * 0.9 ** (size.bit_length() - 1)
    rates = {}
    for name in ("tokens_per_s", "slot_tokens_per_s", "trained_tokens_per_s"):
        estimate = first[name]
        rates[name] = {key: v * factor if key in ("value", "low", "high") and v else v for key, v in estimate.items()}
    attempts = [{**row, "tokens_per_s": row["tokens_per_s"] and row["tokens_per_s"] * factor}
                for row in first["each_attempt"]]  # fmt: skip
    scaled = {"size": str(size), "chips": size, "processes": size, "data_ranks": size, "strategy_requested": "ddp"}
    batch = first["micro_batch"] * SIZES[-1]
    return {
        **first, **rates, **scaled, "each_attempt": attempts, "run_id": f"{i:016x}",
        "model": f"model-{i // len(SIZES)}", "global_batch": batch, "gradient_accumulation": SIZES[-1] // size,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
