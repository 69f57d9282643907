"""How does the smallest Mistral scale over this machine's cores? Both modes of benchmarks/scaling-cpu.toml, one after
the other, and in strong mode a size of twice the cores, which has to be marked and left out.

    python benchmarks/scaling.py --store runs-scaling            # goes on where it was interrupted
    python benchmarks/scaling.py --store runs-scaling --write    # and puts the tables into docs/scaling.md

Every size of every strategy is measured in three fresh processes, then once more with every part of a step timed. About
a quarter of an hour a mode on two idle cores; any other load spoils it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from document import ROOT, machine, put

EXPERIMENT = "benchmarks/scaling-cpu.toml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="runs-scaling", help="folder that keeps the attempts")
    parser.add_argument("--device", default=None, help="other sizes than the experiment's, as cpu:1,2,4,8,16")
    parser.add_argument("--mode", default="strong,weak")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    args = parser.parse_args()
    words = ["--store", os.path.abspath(args.store), *(["--device", args.device] if args.device else [])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    texts, codes = [], []
    for mode in args.mode.split(","):
        text, code = scaled(["--mode", mode, *words])
        texts.append(text)
        codes.append(code)
        if mode == "strong":
            beyond = ["--strategy", "ddp", "--device", f"cpu:1,{cores},{2 * cores}", "--oversubscribe"]
            text, _ = scaled(["--mode", mode, *words[:2], *beyond])
            texts.append(text)
    shown = "\n\n".join([f"{machine()}.", *texts])
    print(shown)
    if args.write:
        put("docs/scaling.md", "scaling", shown)
    return max(codes)


def scaled(words: Sequence[str]) -> tuple[str, int]:
    """The tables of `tunemark scale`, one heading lower, and its exit code. The parts of a step are timed after all
    attempts of the runs themselves: a second command finds those in the store."""
    command = [sys.executable, "-m", "tunemark", "scale", EXPERIMENT, *words]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    done = subprocess.run(
        [*command, "--breakdown", "--repeats", "1"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if not done.stdout.startswith("## "):
        raise SystemExit(f"{' '.join(command)} gave no table, exit code {done.returncode}")
    tables = done.stdout.partition("\nScaling: strong keeps")[0]
    return tables.strip().replace("## ", "### "), done.returncode


if __name__ == "__main__":
    sys.exit(main())
