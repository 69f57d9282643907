"""Do `tunemark plan` and `tunemark fit` agree on memory? Predictions beside what fresh runs held.

    python benchmarks/fit_and_plan.py                                   # losses, recipes and methods on this CPU
    python benchmarks/fit_and_plan.py --micro-batch 2,32 --vary "--loss chunked" "--method lora --update in-backward"

Each cell is a fresh process of a few steps; a folder of its own stands for the calibrations, so that no earlier fit
corrects a prediction. `after` is the prediction of the same cell by the line that its row's cells leave behind. Memory
does not depend on other load, and nothing is timed. Exit code 1 where plan and fit differ by more than --within.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VARIED = (
    "--recipe plain",
    "--recipe tuned",
    "--recipe plain --loss chunked",
    "--recipe tuned --loss plain",
    "--recipe plain --method lora",
    "--recipe tuned --method lora",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mistral-tiny")
    parser.add_argument("--sequence", default="128")
    parser.add_argument("--micro-batch", default="2,8,32", help="two or more")
    parser.add_argument("--steps", default="3", help="of each cell, after one of warm-up")
    parser.add_argument("--memory", default="12", help="GiB that a cell may use")
    parser.add_argument("--within", type=float, default=0.1)
    parser.add_argument("--vary", nargs="+", default=VARIED, metavar="FLAGS", help="flags of each row")
    args = parser.parse_args()
    print("| flags | micro-batch | plan (GB) | fit (GB) | plan / fit | after / fit |\n|---|---:|---:|---:|---:|---:|")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="tunemark-fit-") as name:
        for number, flags in enumerate(args.vary):
            for cell in measure(args, shlex.split(flags), Path(name), number):
                told, held = cell["predicted_bytes"], cell["peak_memory_bytes"]
                if cell["answer"] != "fits" or not told:
                    print(
                        f"| {flags} | {cell['micro_batch']} | {cell['answer']}: {cell['evidence']} | | | |", flush=True
                    )
                    worst = float("inf")
                    continue
                worst = max(worst, abs(told / held - 1.0))
                sizes = f"{told / 1e9:.3f} | {held / 1e9:.3f} | {told / held:.3f}"
                print(f"| {flags} | {cell['micro_batch']} | {sizes} | {cell['after'] / held:.3f} |", flush=True)
    print(f"\nlargest difference between plan and fit: {worst:.1%}")
    return 0 if worst <= args.within else 1


def measure(args: argparse.Namespace, flags: list[str], folder: Path, number: int) -> list[dict[str, Any]]:
    """The cells of one `tunemark fit`, each with what the line through them predicts (`after`)."""
    from tunemark.predict.measured_memory import MeasuredMemory, fit_measured_memory

    command = [sys.executable, "-m", "tunemark", "fit", "--model", args.model, "--device", "cpu:1", "--repeats", "1"]
    command += ["--sequence", args.sequence, "--micro-batch", args.micro_batch, "--steps", args.steps, "--warmup", "1"]
    command += ["--memory", args.memory, "--store", str(folder / str(number)), "--json", "--quiet", *flags]
    environment = {**os.environ, "TUNEMARK_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if not done.stdout:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    (row,) = json.loads(done.stdout)["rows"]
    cells: list[dict[str, Any]] = row["cells"]
    good = [each for each in cells if each["answer"] == "fits" and each["predicted_bytes"]]
    line = fit_measured_memory([(each["predicted_bytes"], each["peak_memory_bytes"]) for each in good])
    for each in good:
        assert isinstance(line, MeasuredMemory)
        each["after"] = line.correct(each["predicted_bytes"])
    return cells


if __name__ == "__main__":
    sys.exit(main())
