"""How fast are two commits at the same run? Slots/s, content tokens/s and memory of fresh processes, in rounds.

Each commit is checked out and installed, without its dependencies, into a temporary folder. In each round both are run
once, and every other round begins with the other commit, so that a drift of the machine cancels out. Everything after
`--` is given to `tunemark run` of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from overhead import median

ROOT = Path(__file__).parents[1]


class CommitRun(NamedTuple):
    """One attempt. bytes: peak memory of the process."""

    slots_per_s: float
    content_per_s: float
    bytes: int
    losses: tuple[float, float]


def main() -> int:
    """Exit code 0: the second commit is at least --bar times as fast, by the median. 1: it is not."""
    options = _options(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="tunemark-commits-") as name:
        folder = Path(name)
        words = [options.words, [*options.words, *options.second.split()]]
        installed = [_install(commit, folder / str(n)) for n, commit in enumerate(options.commits)]
        print(f"tunemark run {' '.join(options.words)}")
        print(f"1: {options.commits[0]}, 2: {options.commits[1]} {options.second}\n")
        print("round  first  slots/s 1  slots/s 2    2/1  GiB 1  GiB 2  load", flush=True)
        pairs = []
        for number in range(options.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found = {n: _run(installed[n], words[n], options, folder / f"store-{n}") for n in order}
            pairs.append((found[0], found[1]))
            a, b = pairs[-1]
            rates = f"{a.slots_per_s:9,.0f}  {b.slots_per_s:9,.0f}  {b.slots_per_s / a.slots_per_s:5.2f}"
            held = f"{a.bytes / 2**30:5.2f}  {b.bytes / 2**30:5.2f}"
            print(f"{number + 1:5}  {order[0] + 1:5}  {rates}  {held}  {os.getloadavg()[0]:4.1f}", flush=True)
    ratio = median([b.slots_per_s / a.slots_per_s for a, b in pairs])
    memory = statistics.median(b.bytes / a.bytes for a, b in pairs)
    print(f"\nslots/s, 2/1: {ratio.value:.3f}, from {ratio.low:.3f} to {ratio.high:.3f} ({100 * ratio.coverage:.0f} %)")
    print(f"content tokens/s, 2/1: {statistics.median(b.content_per_s / a.content_per_s for a, b in pairs):.3f}")
    print(f"memory, 2/1: {memory:.3f}")
    apart = max(abs(b.losses[0] / a.losses[0] - 1.0) for a, b in pairs)
    one, two = (run.losses[0] for run in pairs[0])
    print(f"loss of the first step: {one:.7f} and {two:.7f}, at most {apart:.1e} apart in any round")
    return 0 if ratio.value >= options.bar else 1


def _install(commit: str, folder: Path) -> Path:
    """The folder with the packages of a commit, which comes first on the path of its processes."""
    source, target = folder / "source", folder / "packages"
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], check=True, stdout=subprocess.PIPE).stdout
    source.mkdir()
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True)
    return target


def _run(packages: Path, words: Sequence[str], options: argparse.Namespace, store: Path) -> CommitRun:
    counted = ["--warmup", str(options.warmup), "--steps", str(options.steps), "--repeats", "1", "--redo"]
    # `--no-measure-peak` by its former name, which older commits know.
    fixed = ["--no-calibrate", "--target-interval", "0", "--budget", "1000000", "--store", str(store), "--json"]
    command = [sys.executable, "-P", "-m", "tunemark", "run", *words, *counted, *fixed]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=store.parent)
    lines = done.stdout.splitlines()
    if len(lines) != 1:
        raise SystemExit(f"{' '.join(command)} gave {len(lines)} results\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[0])
    if result["status"] != "ok" or result["slot_tokens_per_s"] is None:
        raise SystemExit(f"{' '.join(command)} ended {result['status']}\n{done.stderr[-2000:]}")
    return CommitRun(
        result["slot_tokens_per_s"]["value"],
        result["tokens_per_s"]["value"],
        result["peak_memory_bytes"],
        (result["loss_first"], result["loss_last"]),
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("commits", nargs=2, help="two commits")
    parser.add_argument("--second", default="", help="more words for the second commit, in one argument")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each with both commits")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--bar", type=float, default=1.0, help="the ratio that is asked for")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    options.words = list(arguments[end + 1 :])
    return options


if __name__ == "__main__":
    sys.exit(main())
