"""How does the smallest Mistral scale over this machine's cores? Runs both modes of scaling-cpu, and in
strong mode also twice the cores, which the result must mark as oversubscribed and leave out.

    python benchmarks/scaling.py --store runs-scaling            # continues an interrupted run
    python benchmarks/scaling.py --store runs-scaling --write    # also puts the tables into docs/scaling.md

Every size of every strategy is measured in three new processes, then once more with every part of a step timed. A mode
takes about 15 minutes on two idle cores; any other load distorts the result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from document import ROOT, machine, put

EXPERIMENT = "scaling-cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="runs-scaling", help="folder for the attempts")
    parser.add_argument("--device", default=None, help="sizes instead of the experiment's, such as cpu:1,2,4,8,16")
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
    """(tables of `tunemark scale` with headings one level lower, exit code). A second command times the parts of a
    step, after the first has stored all attempts of the runs."""
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
