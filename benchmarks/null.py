"""How often does a comparison call two identical runs different? Measures pairs of runs of one experiment.

Each pair is two runs of the same plan with interleaved attempts (A B B A A B ...). It is judged twice: by the ratios of
its attempts, as `tunemark compare` judges repeated runs, and by the within-run intervals of only the first attempts,
which ignore variation between processes. At a level of 95 % one pair in twenty is called different by chance. More than
that by the first method is a fault of the statistics; by the second it shows why runs need several attempts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attempt import attempt, noticed

from tunemark.results.ratio import RatioTerm, estimate_ratio

LEVEL = 0.95
# The benchmark fails if chance gives so many differing pairs in less than 1 % of trials.
RARE = 0.01


class Ratio(NamedTuple):
    """The ratio A/B of one pair with its interval; the bounds are None without one."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_different(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def main() -> int:
    """Exit code 0: no more pairs differ by their attempts than chance explains. 1: more."""
    options = _options()
    words = ["--model", options.model, "--device", options.device, "--sequence", str(options.sequence)]
    words += ["--micro-batch", str(options.micro_batch)]
    print(f"{options.pairs} pairs of {' '.join(words)}, {options.attempts} attempts each,")
    print(f"{options.warmup} + {options.steps} steps\n")
    print(
        "pair  A tokens/s  B tokens/s  A/B by attempts               A/B within the first        verdicts", flush=True
    )
    by_attempts: list[Ratio] = []
    by_windows: list[Ratio] = []
    with tempfile.TemporaryDirectory(prefix="tunemark-null-") as folder:
        for pair in range(options.pairs):
            a, b = _measure_pair(words, options, Path(folder))
            by_attempts.append(ratio_of_attempts([_rate(x) for x in a], [_rate(x) for x in b]))
            by_windows.append(ratio_of_windows(a[0]["tokens_per_s"], b[0]["tokens_per_s"]))
            middles = [statistics.geometric_mean(map(_rate, side)) for side in (a, b)]
            words_seen = ", ".join(sorted({noticed(x) for x in (*a, *b)}))
            columns = f"{_format_ratio(by_attempts[-1]):28}  {_format_ratio(by_windows[-1]):26}  {words_seen}"
            print(f"{pair + 1:4}  {middles[0]:10,.1f}  {middles[1]:10,.1f}  {columns}", flush=True)
    print()
    different = sum(ratio.is_different for ratio in by_attempts)
    limit = most_by_chance(options.pairs)
    print(f"called different by attempts: {different} of {options.pairs}", end=" ")
    print(
        f"(expected {(1 - LEVEL) * options.pairs:.0f}; more than {limit} happens in under {100 * RARE:.0f} % of trials)"
    )
    print(f"called different within the first attempts: {sum(r.is_different for r in by_windows)} of {options.pairs}")
    print("PASS" if different <= limit else "SHORT: the intervals are too narrow")
    return 0 if different <= limit else 1


def ratio_of_attempts(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """As `tunemark compare` computes it for attempts taken in rounds."""
    found = estimate_ratio([RatioTerm(1.0, a), RatioTerm(-1.0, b)], in_rounds=True, level=LEVEL)
    return Ratio(found.value, found.low, found.high)


def ratio_of_windows(a: dict[str, Any], b: dict[str, Any]) -> Ratio:
    """The ratio of two rates with independent intervals: their log half-widths add in quadrature."""
    value = a["value"] / b["value"]
    if a["low"] is None or b["low"] is None:
        return Ratio(value, None, None)
    half = math.hypot(*(math.log(e["high"] / e["low"]) / 2 for e in (a, b)))
    return Ratio(value, value * math.exp(-half), value * math.exp(half))


def most_by_chance(pairs: int) -> int:
    """The smallest count that chance alone exceeds with a probability below RARE."""
    chance = 1 - LEVEL
    left = 1.0
    for count in range(pairs + 1):
        left -= math.comb(pairs, count) * chance**count * LEVEL ** (pairs - count)
        if left < RARE:
            return count
    return pairs


def _measure_pair(words: Sequence[str], options: argparse.Namespace, store: Path) -> tuple[list[Any], list[Any]]:
    sides: tuple[list[Any], list[Any]] = ([], [])
    for number in range(options.attempts):
        # Alternate which side is first, so that a drift of the machine cancels out.
        for side in sides if number % 2 == 0 else sides[::-1]:
            side.append(attempt(words, warmup=options.warmup, steps=options.steps, store=store))
    return sides


def _rate(result: dict[str, Any]) -> float:
    return float(result["tokens_per_s"]["value"])


def _format_ratio(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.4f}, no interval"
    mark = " *" if ratio.is_different else ""
    return f"{ratio.value:.4f} ({ratio.low:.4f}-{ratio.high:.4f}){mark}"


def _options() -> argparse.Namespace:
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs")
    parser.add_argument("--attempts", type=int, default=3, help="attempts of each run, at least 2")
    parser.add_argument("--model", default="mistral-tiny", help=" ")
    parser.add_argument("--device", default="auto", help="cpu:2, cuda, ..., one accelerator")
    parser.add_argument("--sequence", type=int, default=128, help="slots in a sequence, tokens")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences in a step")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    options = parser.parse_args()
    for name, least in (("pairs", 1), ("attempts", 2), ("warmup", 0), ("steps", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is {least} at least")
    return options


if __name__ == "__main__":
    sys.exit(main())
