"""Does the harness slow training down? Tokens/s of `tunemark run` against the same training in a plain torch loop.

Both train the same model from the same seed on the same batches, in new processes with the same threads, cores and
allocator. Both rates are content tokens over the wall time of the timed steps. The hand-written loop uses batches made
beforehand, and does not count, record or read a clock within the timed part. That, and everything else that the harness
does between the two clock readings, is the measured overhead.

With --python both sides train in another interpreter, as the device xla needs: there a step of the hand-written loop
ends with `torch_xla.sync()`, and the timed part with waiting for the device.

Pairs are interleaved and every other one begins with the hand-written loop, so that a drift of the machine cancels out.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attempt import attempt, noticed

from tunemark.runner.overhead import copy_environment, run_by_hand

MODEL = "mistral-tiny"
# The harness may cost at most 1 %.
BAR = 0.99
LEVEL = 0.95
# Largest relative difference of the first step's losses; more would mean different training.
LOSS_TOLERANCE = 1e-4


class Rate(NamedTuple):
    """The measurement of one side of a pair. content: tokens of the timed steps without padding. losses: per predicted
    token, of the first and the last step. notice: the harness's verdict, empty for the hand-written loop."""

    tokens_per_s: float
    content: int
    losses: tuple[float, float]
    notice: str = ""


class Median(NamedTuple):
    """A median with two order statistics around it, which contain the true median with probability `coverage` for any
    distribution. rank: `low` is the rank-th smallest value, `high` the rank-th largest."""

    value: float
    low: float
    high: float
    coverage: float
    rank: int


def main() -> int:
    """Exit code 0: the interval is above the bar. 1: it is below, or the sides differ. 3: it contains the bar."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tunemark-overhead-") as folder:
        return _compare(options, Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> int:
    words = [
        "--model", options.model, "--device", options.device, "--sequence", str(options.sequence),
        "--micro-batch", str(options.micro_batch), "--precision", options.precision,
    ]  # fmt: skip
    # The loop by hand has a mask, as a plain loop has.
    plain = ["--batching", options.batching, "--attention", "sdpa", "--allocator", options.allocator]
    if options.recipe:
        plain = ["--recipe", "plain"]
        options.batching = "pad"
    # A run of one step writes the plan that the other side follows, and warms up the token file and the libraries.
    rehearsal = folder / "rehearsal"
    words += ["--python", options.python] if options.python else []
    result = attempt([*words, *plain], warmup=0, steps=1, store=rehearsal)
    words += ["--recipe", options.recipe] if options.recipe else plain
    (plan,) = rehearsal.glob("*/*/plan.json")
    environment = copy_environment(result["environment"]["worker"])
    shape = f"{options.batching} {options.micro_batch} x {options.sequence}, {options.precision}"
    print(f"{options.model} on {result['device']} {result['size']} ({result['threads']} threads), {shape}")
    print(f"{options.warmup} + {options.steps} steps, {options.pairs} pairs\n")
    print("pair  first    harness tokens/s  by hand tokens/s  harness/hand  harness's verdict", flush=True)

    ratios: list[float] = []
    sides: list[tuple[Rate, Rate]] = []
    for pair in range(options.pairs):
        by_hand_first = pair % 2 == 1
        if by_hand_first:
            hand = _run_by_hand(plan, environment, options)
        harness = _run_harness(words, options, folder / "store")
        if not by_hand_first:
            hand = _run_by_hand(plan, environment, options)
        sides.append((harness, hand))
        ratios.append(harness.tokens_per_s / hand.tokens_per_s)
        first = "by hand" if by_hand_first else "harness"
        rates = f"{harness.tokens_per_s:16,.1f}  {hand.tokens_per_s:16,.1f}"
        print(f"{pair + 1:4}  {first:7}  {rates}  {ratios[-1]:12.4f}  {harness.notice}", flush=True)

    # Another recipe has other rows.
    same = bool(options.recipe) or _check_same_training(sides)
    found = median(ratios)
    print(f"\ntokens/s, median: {_median_rate(sides, 0):,.1f} harness, {_median_rate(sides, 1):,.1f} by hand")
    between = f"the {_ordinal(found.rank)} smallest and the {_ordinal(found.rank)} largest of {len(ratios)}"
    print(f"harness/hand, median: {found.value:.4f}, from {found.low:.4f} to {found.high:.4f} ({between},")
    print(f"which hold the true median with {100 * found.coverage:.2f} %)")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    verdict, code = _verdict(found) if options.within is None else verdict_within(found, options.within)
    print(verdict)
    return code if same else 1


def _check_same_training(sides: Sequence[tuple[Rate, Rate]]) -> bool:
    """Whether both sides of every pair trained on the same tokens with the same losses; prints the comparison."""
    apart = [max(_relative_difference(h.losses[i], b.losses[i]) for h, b in sides) for i in (0, 1)]
    harness, hand = sides[0]
    print(f"\nloss of the first step: {harness.losses[0]:.7f} harness, {hand.losses[0]:.7f} by hand,", end=" ")
    print(f"at most {apart[0]:.1e} apart in any pair (bound {LOSS_TOLERANCE:.0e})")
    print(f"loss of the last step: {harness.losses[1]:.7f} harness, {hand.losses[1]:.7f} by hand,", end=" ")
    print(f"at most {apart[1]:.1e} apart in any pair (no bound: rounding grows with the steps)")
    tokens = {rate.content for pair in sides for rate in pair}
    print(f"content tokens of the timed steps: {', '.join(f'{n:,}' for n in sorted(tokens))}", end="")
    print(" on both sides" if len(tokens) == 1 else ": THE SIDES DIFFER")
    if apart[0] > LOSS_TOLERANCE:
        print("THE LOSSES DIFFER: the two sides do not train the same, and the ratio says nothing")
    return apart[0] <= LOSS_TOLERANCE and len(tokens) == 1


def _verdict(found: Median) -> tuple[str, int]:
    if found.coverage < LEVEL:
        return f"UNDECIDED: with so few pairs no interval has {100 * LEVEL:.0f} %; take 6 or more", 3
    if found.low >= BAR:
        return f"PASS: the whole interval is at or above {BAR}", 0
    if found.high < BAR:
        return f"SHORT: the whole interval is below {BAR}", 1
    side = "at or above" if found.value >= BAR else "below"
    return f"UNDECIDED: the median is {side} {BAR}, but the interval holds it; take more pairs or steps", 3


def verdict_within(found: Median, within: float) -> tuple[str, int]:
    """What an interval says of a bar of both sides, and the exit code for it."""
    low, high = 1 - within, 1 + within
    if found.coverage < LEVEL:
        return f"UNDECIDED: with so few pairs no interval has {100 * LEVEL:.0f} %; take 6 or more", 3
    if low <= found.low and found.high <= high:
        return f"PASS: the whole interval lies from {low:g} to {high:g}", 0
    if found.high < low or found.low > high:
        return f"SHORT: the whole interval lies outside {low:g} to {high:g}", 1
    return f"UNDECIDED: the interval holds a bound of {low:g} to {high:g}; take more pairs or steps", 3


def median(values: Sequence[float], level: float = LEVEL) -> Median:
    """The median with the narrowest pair of order statistics that contains it with probability `level` (the inverted
    sign test), or the extremes if even they do not reach it."""
    n = len(values)
    ordered = sorted(values)

    def coverage(rank: int) -> float:
        # The median is outside if fewer than `rank` of n fair coins fall on one of the sides.
        return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n

    rank = max((r for r in range(1, (n + 1) // 2 + 1) if coverage(r) >= level), default=1)
    return Median(statistics.median(ordered), ordered[rank - 1], ordered[n - rank], max(0.0, coverage(rank)), rank)


def _run_harness(words: Sequence[str], options: argparse.Namespace, store: Path) -> Rate:
    result = attempt(words, warmup=options.warmup, steps=options.steps, store=store)
    losses = (result["loss_first"], result["loss_last"])
    return Rate(result["tokens_per_s"]["value"], result["tokens"]["content"], losses, noticed(result))


def _run_by_hand(plan: Path, environment: dict[str, str], options: argparse.Namespace) -> Rate:
    found = run_by_hand(
        plan, environment, python=options.python or sys.executable, warmup=options.warmup, steps=options.steps
    )
    return Rate(found["content"] / found["seconds"], found["content"], (found["loss_first"], found["loss_last"]))


def _relative_difference(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def _median_rate(sides: Sequence[tuple[Rate, Rate]], side: int) -> float:
    return statistics.median(pair[side].tokens_per_s for pair in sides)


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _options() -> argparse.Namespace:
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of new processes; at least 7 for a conclusion")
    parser.add_argument("--warmup", type=int, default=20, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=100, help="timed steps")
    parser.add_argument("--sequence", type=int, default=512, help="slots in a sequence, tokens")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences in a step")
    parser.add_argument("--precision", default="bf16-autocast", choices=("fp32", "bf16-autocast", "bf16"), help=" ")
    parser.add_argument("--batching", default="pack", choices=("pack", "pad"), help=" ")
    parser.add_argument("--device", default="auto", help="cpu:2, cuda, ..., one accelerator")
    parser.add_argument("--model", default=MODEL, help="a model of Mistral's family")
    parser.add_argument("--allocator", default="tuned", help="of both sides")
    parser.add_argument("--recipe", help="of the harness's side, held to a padded loop with the system's allocator")
    parser.add_argument("--python", help="interpreter in which both sides train")
    parser.add_argument("--within", type=float, help="how far from 1 the ratio may lie, both ways, instead of the bar")
    options = parser.parse_args()
    for name, least in (("pairs", 1), ("warmup", 0), ("steps", 1), ("sequence", 2), ("micro_batch", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {least} at least")
    return options


if __name__ == "__main__":
    sys.exit(main())
