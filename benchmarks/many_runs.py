"""How long does the report of 10,000 runs take, and how much memory? Bars: 10 s and 1 GB.

The runs are copies of one in reports/example, each with its own seed and rate; `tunemark report` runs in a separate
process. Usage: python benchmarks/many_runs.py [RUNS]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SECONDS, BYTES = 10.0, 1e9

first = (Path(__file__).parents[1] / "reports/example/runs.jsonl").read_text().splitlines()[0]
with tempfile.TemporaryDirectory() as folder:
    store, output = Path(folder, "many"), Path(folder, "out")
    store.mkdir()
    with open(store / "runs.jsonl", "w") as file:
        for i in range(RUNS):
            run = json.loads(first)
            run.update(run_id=f"{i:016x}", seed=i)
            run["tokens_per_s"]["value"] *= 1 + i / RUNS / 1000
            file.write(json.dumps(run) + "\n")
    start_s = time.monotonic()
    command = [sys.executable, "-m", "tunemark", "report", str(store), "-o", str(output)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    took_s = time.monotonic() - start_s
    page = (output / "report.html").stat().st_size

most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
is_good = took_s < SECONDS and most < BYTES
print(
    f"{RUNS:,} runs: {took_s:.1f} s, {most / 1e6:.0f} MB at most, page of {page / 1e6:.2f} MB, exit {done.returncode}"
)
print("PASS" if is_good else "SHORT", f"(bars: {SECONDS:.0f} s, {BYTES / 1e6:.0f} MB)")
sys.exit(not is_good)
