"""`python benchmarks/published_rows.py ROWS.csv [--fit] [--rows]` compares the cost model with published throughput.

ROWS.csv has the columns that `tunemark predict --rows` reads, and the measurements: `source`, `tokens_per_s_total` or
`tokens_per_s_per_device`, and where published `peak_mem_gb_reported` (1e9 bytes).

Each source is predicted with constants fitted to all other sources. The baseline is a constant MFU: the median over the
other sources of the same chip and bit width, or of its class. `--fit` prints the constants fitted to all rows, as
`harness/tunemark/predict/efficiency_constants.py` holds them.

The fit minimizes the robust (Huber) error of the logarithm of step times plus each constant's squared distance from its
prior, by Gauss-Newton steps. Rows of one source and chip share a common error, so that a hundred rows of one source
weigh little more than a few of several.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunemark.errors import TunemarkError
from tunemark.physics import train_flops_per_token
from tunemark.predict import DeviceFacts
from tunemark.predict.chip_facts import find_any_chip, rated_power
from tunemark.predict.cost_model import LOW_PRECISIONS, predict_step_seconds
from tunemark.predict.efficiency_constants import CONSTANTS, constant_values, find_class_efficiency
from tunemark.predict.published_rows import (
    ConvertedRow,
    UnconvertibleRow,
    convert_row,
    format_layout,
)
from tunemark.predict.row_cells import read_published_rows

# Standard deviation of one row's unexplained error, in the logarithm of the step time.
_ROW_SIGMA = 0.10
# Errors larger than this many standard deviations count linearly.
_HUBER = 1.5
# Standard deviation of the error shared by all rows of a source and chip (software, clocks, method of measurement).
_COMMON = 0.12


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A row with its measurements. seconds: of a step. memory_bytes: None if not published."""

    row: Mapping[str, str]
    step: ConvertedRow
    source: str
    seconds: float
    memory_bytes: float | None

    @property
    def kind(self) -> str:
        return "TP/PP" if self.step.layout.tensor > 1 or self.step.layout.pipeline > 1 else "FSDP/DP"

    @property
    def is_low(self) -> bool:
        return self.step.work.precision in LOW_PRECISIONS

    @property
    def flops(self) -> float:
        """FLOPs of a step per device."""
        work = self.step.work
        tokens = work.global_batch * work.sequence / self.step.layout.ranks
        return train_flops_per_token(work.architecture, work.sequence) * tokens

    @property
    def peak(self) -> float:
        name = {"mxfp8": "fp8", "fp8-rowwise": "fp8", "nvfp4": "fp4"}.get(self.step.work.precision)
        return self.step.device.peak_flops[name or self.step.work.precision]


def seconds(one: Measured, constants: Mapping[str, float], kinds: dict[str, DeviceFacts]) -> float:
    """The predicted step time. kinds: a cache of devices with these constants, by name."""
    name = one.step.device.name
    key = name, one.step.device.node, one.step.device.inter_bytes_per_s
    if key not in kinds:
        kinds[key] = replace(
            one.step.device,
            efficiency=find_class_efficiency(name, rated_power(find_any_chip(name)[0]), constants).efficiency,
        )
    return predict_step_seconds(one.step.work, one.step.layout, kinds[key]).total


def errors(rows: Sequence[Measured], constants: Mapping[str, float]) -> np.ndarray:
    """Logarithms of predicted over measured step times."""
    kinds: dict[str, DeviceFacts] = {}
    return np.array([math.log(seconds(one, constants, kinds) / one.seconds) for one in rows])


def fit(rows: Sequence[Measured], start: Mapping[str, float] | None = None, rounds: int = 12) -> dict[str, float]:
    """The constants that explain the rows and stay near their priors. start: the initial values."""
    names = [c.name for c in CONSTANTS]
    prior = np.log([c.prior for c in CONSTANTS])
    spread = np.array([c.spread for c in CONSTANTS])
    groups = [(one.source, one.step.device.name) for one in rows]
    member = np.array([[float(group == g) for g in dict.fromkeys(groups)] for group in groups])

    def residuals(at: np.ndarray) -> np.ndarray:
        return errors(rows, dict(zip(names, np.exp(at), strict=True))) / _ROW_SIGMA

    def solve(at: np.ndarray, now: np.ndarray, slopes: np.ndarray, damping: float) -> np.ndarray:
        # Each group's common error is estimated together with the constants and discarded.
        off = now
        for _ in range(3):
            weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(off), 1e-9))
            wide = np.hstack([slopes, member / _ROW_SIGMA])
            stiff = np.concatenate([(1 + damping) / spread**2, np.full(member.shape[1], 1 / _COMMON**2)])
            pull = wide.T @ (weight * now)
            pull[: len(at)] += (at - prior) / spread**2
            step = np.linalg.solve(wide.T @ (weight[:, None] * wide) + np.diag(stiff), -pull)
            off = now + member @ step[len(at) :] / _ROW_SIGMA
        return np.asarray(step[: len(at)])

    def cost(at: np.ndarray, found: np.ndarray) -> float:
        off = found
        for _ in range(3):
            weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(off), 1e-9))
            both = member / _ROW_SIGMA
            common = np.linalg.solve(
                both.T @ (weight[:, None] * both) + np.eye(member.shape[1]) / _COMMON**2, -both.T @ (weight * found)
            )
            off = found + both @ common
        size = np.abs(off)
        huber = np.where(size <= _HUBER, size**2, 2 * _HUBER * size - _HUBER**2)
        return float(huber.sum() + ((common / _COMMON) ** 2).sum() + (((at - prior) / spread) ** 2).sum())

    at = prior.copy() if start is None else np.log([start[name] for name in names])
    now = residuals(at)
    damping = 0.1
    for _ in range(rounds):
        slopes = np.empty((len(rows), len(at)))
        for i in range(len(at)):
            moved = at.copy()
            moved[i] += 0.02
            slopes[:, i] = (residuals(moved) - now) / 0.02
        before = cost(at, now)
        for _ in range(6):
            tried = at + np.clip(solve(at, now, slopes, damping), -0.5, 0.5)
            found = residuals(tried)
            if cost(tried, found) < before:
                damping /= 10
                break
            damping *= 10
        else:
            break
        gain = before - cost(tried, found)
        at, now = tried, found
        if gain < 3e-3 * before:
            break
    return dict(zip(names, map(float, np.exp(at)), strict=True))


def baseline(one: Measured, others: Sequence[Measured]) -> float:
    """Step time by the median utilization of the same chip and bit width, of its class, or of all others; full
    recomputation counts as a third more work, which makes this constant-MFU baseline as strong as possible."""

    def work(row: Measured) -> float:
        return row.flops * (4.0 / 3.0 if row.step.layout.recompute == "full" else 1.0)

    alike = [o for o in others if o.is_low == one.is_low]
    kind = [o for o in others if o.step.device.kind == one.step.device.kind]
    chosen = (
        [o for o in alike if o.step.device.name == one.step.device.name]
        or [o for o in alike if o in kind]
        or kind
        or alike
        or others
    )
    return work(one) / one.peak / statistics.median(work(o) / o.seconds / o.peak for o in chosen)


def measured(rows: Sequence[Mapping[str, str]]) -> tuple[list[Measured], list[UnconvertibleRow]]:
    """(rows that state a rate, rows that cannot be expressed)."""
    found, failed = [], []
    for row in rows:
        step = convert_row(row)
        if isinstance(step, UnconvertibleRow):
            failed.append(step)
            continue
        ranks = step.layout.ranks
        rate = float(row.get("tokens_per_s_total") or 0) or float(row.get("tokens_per_s_per_device") or 0) * ranks
        tokens = step.work.global_batch * step.work.sequence
        took = tokens / rate if rate else float(row.get("step_time_s") or 0)
        if not took:
            continue
        held = row.get("peak_mem_gb_reported")
        found.append(
            Measured(
                row=row, step=step, source=row.get("source") or "?", seconds=took,
                memory_bytes=float(held) * 1e9 if held else None,
            )
        )  # fmt: skip
    return found, failed


def regrets(rows: Sequence[Measured], predicted: Sequence[float]) -> dict[str, list[float]]:
    """By source, for each model, size and batch with several layouts: how much slower the layout predicted best is than
    the one measured best, as a fraction."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, one in enumerate(rows):
        a, work = one.step.work.architecture, one.step.work
        key = (one.source, a.num_hidden_layers, a.hidden_size, one.step.layout.ranks, work.global_batch, work.sequence,
               work.precision, a.vocab_size, one.row.get("date_or_version"))  # fmt: skip
        groups[key].append(i)
    found: dict[str, list[float]] = defaultdict(list)
    for members in groups.values():
        if len({rows[i].step.layout for i in members}) < 2:
            continue
        first = min(members, key=lambda i: predicted[i])
        best = min(rows[i].seconds for i in members)
        found[rows[first].source].append(rows[first].seconds / best - 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", metavar="ROWS.csv")
    parser.add_argument("--fit", action="store_true", help="print the constants fitted to all rows")
    parser.add_argument("--rows", action="store_true", help="print every row's error")
    parser.add_argument("--by", default="source", choices=("source", "publisher"), help="what is left out together")
    args = parser.parse_args()
    try:
        rows, failed = measured(read_published_rows(args.csv))
    except TunemarkError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(rows)} rows, {len(failed)} that cannot be expressed, {len(CONSTANTS)} constants")
    for one in failed[:10]:
        print(f"  {one.id}: {one.reason}")
    if args.fit:
        found = fit(rows)
        for constant in CONSTANTS:
            print(f"{constant.name:22} {found[constant.name]:.4g}  (before: {constant.prior:.4g})")
        shipped, refitted = (np.abs(np.expm1(errors(rows, c))).mean() for c in (constant_values(), found))
        print(f"in sample: {100 * refitted:.1f} %; with the constants shipped: {100 * shipped:.1f} %")
        return 0
    _print_report(rows, args.by, args.rows)
    return 0


def _print_report(rows: Sequence[Measured], by: str, is_each: bool) -> None:
    def left(one: Measured) -> str:
        return one.source.split()[0] if by == "publisher" else one.source

    predicted, constant = [0.0] * len(rows), [0.0] * len(rows)
    for name in dict.fromkeys(map(left, rows)):
        others = [one for one in rows if left(one) != name]
        constants, kinds = fit(others, constant_values()), {}
        if is_each:
            print(f"without {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in constants.items()))
        for i, one in enumerate(rows):
            if left(one) == name:
                predicted[i] = seconds(one, constants, kinds)
                constant[i] = baseline(one, others)
    shipped: dict[str, DeviceFacts] = {}
    inside = [seconds(one, constant_values(), shipped) for one in rows]

    print(f"\nStep time, each {by} predicted from the others; mean absolute error (%), median in brackets\n")
    print("| rows | n | this model | bias | shipped constants, in sample | constant MFU |")
    print("|---|---:|---:|---:|---:|---:|")
    slices: list[tuple[str, Callable[[Measured], bool]]] = [
        ("all", lambda one: True),
        ("TP/PP", lambda one: one.kind == "TP/PP"),
        ("FSDP/DP", lambda one: one.kind == "FSDP/DP"),
        ("8 and 4 bits", lambda one: one.is_low),
        ("8 bits", lambda one: one.is_low and one.step.work.precision != "nvfp4"),
    ]
    for source in dict.fromkeys(one.source for one in rows):
        slices.append((source, lambda one, source=source: one.source == source))
    for device in dict.fromkeys(one.row["device"] for one in rows):
        for kind in ("TP/PP", "FSDP/DP"):
            slices.append((f"{device}, {kind}", lambda one, d=device, k=kind: one.row["device"] == d and one.kind == k))
    sources: list[tuple[float, float]] = []
    for name, chosen in slices:
        some = [i for i, one in enumerate(rows) if chosen(one)]
        if not some:
            continue
        ours, shipped_error, mfu = (
            [abs(found[i] / rows[i].seconds - 1) for i in some] for found in (predicted, inside, constant)
        )
        bias = statistics.mean(math.log(predicted[i] / rows[i].seconds) for i in some)
        if name in {one.source for one in rows}:
            sources.append((statistics.mean(ours), statistics.mean(mfu)))
        print(
            f"| {name} | {len(some)} | {_error(ours)} | {100 * bias:+.1f} | {_error(shipped_error)} | {_error(mfu)} |"
        )
    ours_mean, mfu_mean = (100 * statistics.mean(pair) for pair in zip(*sources, strict=True))
    print(f"| mean over sources | {len(sources)} | {ours_mean:.1f} | | | {mfu_mean:.1f} |")

    held = [one for one in rows if one.memory_bytes is not None]
    print("\nMemory of the fullest rank\n\n| source | n | mean absolute error (%) | worst |\n|---|---:|---:|---:|")
    for source in dict.fromkeys(one.source for one in held):
        off = [
            one.step.predict().memory_bytes / one.memory_bytes - 1
            for one in held
            if one.source == source and one.memory_bytes
        ]
        print(f"| {source} | {len(off)} | {_error([abs(x) for x in off])} | {100 * max(off, key=abs):+.1f} |")
    every = [abs(one.step.predict().memory_bytes / one.memory_bytes - 1) for one in held if one.memory_bytes]
    if every:
        print(f"| all | {len(every)} | {_error(every)} | |")

    print("\nFirst choice among published layouts of one model, size and batch: regret (%)\n")
    print("| source | choices | mean | worst |\n|---|---:|---:|---:|")
    for source, regret in regrets(rows, predicted).items():
        mean, worst = 100 * statistics.mean(regret), 100 * max(regret)
        print(f"| {source} | {len(regret)} | {mean:.1f} | {worst:.1f} |")
    if is_each:
        print("\n| row | source | layout | measured (s) | predicted (s) | off (%) |\n|---|---|---|---:|---:|---:|")
        for one, found in zip(rows, predicted, strict=True):
            off = 100 * (found / one.seconds - 1)
            layout = f"{format_layout(one.step.layout)} mb={one.step.layout.micro_batch}"
            print(f"| {one.step.id} | {one.source} | {layout} | {one.seconds:.4g} | {found:.4g} | {off:+.1f} |")


def _error(off: Sequence[float]) -> str:
    return f"{100 * statistics.mean(off):.1f} ({100 * statistics.median(off):.1f})"


if __name__ == "__main__":
    sys.exit(main())
