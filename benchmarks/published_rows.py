"""`python benchmarks/published_rows.py ROWS.csv ... [--fit] [--rows]`: the cost model against published throughput.

ROWS.csv has the columns that `tunemark predict --rows` reads, and the measurements: `source`, `tokens_per_s_total` or
`tokens_per_s_per_device`, and where published `peak_mem_gb_reported` (1e9 bytes). Rows whose `quality` is stated and
other than "good" are predicted and not fitted.

Each source is predicted with constants fitted to all other sources (`--by framework`: each software with constants
fitted to all other software; `chip`, `model`: likewise; `none`: with the shipped constants). Tables by kind, source and
chip show the error, how many rows lie within the bounds that claim 95 %, and a constant MFU: the median over the other
sources of the same chip and bit width, or of its class. `--fit` prints the constants fitted to all rows, as
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from tunemark.errors import TunemarkError
from tunemark.physics import train_flops_per_token
from tunemark.predict import DeviceFacts
from tunemark.predict.chip_facts import find_any_chip, rated_power
from tunemark.predict.cost_model import predict_step_seconds
from tunemark.predict.efficiency_constants import CONSTANTS, constant_values, find_class_efficiency
from tunemark.predict.layout import Framework
from tunemark.predict.matrix_products import LOW_PRECISIONS
from tunemark.predict.memory_model import predict_memory
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
# Kinds with so many rows, of which so many should be within their bounds.
_ENOUGH, _LEAST, _MOST = 15, 0.90, 0.98


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A row with its measurements. seconds: of a step. memory_bytes: None if not published."""

    row: Mapping[str, str]
    step: ConvertedRow
    source: str
    seconds: float
    memory_bytes: float | None

    @property
    def ranks(self) -> int:
        return self.step.layout.ranks

    @property
    def is_good(self) -> bool:
        """Whether the row may be fitted."""
        return self.row.get("quality") in (None, "", "good")

    @property
    def is_dense(self) -> bool:
        """Whether all weights of a dense model are trained."""
        return not self.step.work.architecture.num_local_experts and self.step.work.trained_fraction == 1.0

    @property
    def is_guessed(self) -> bool:
        """Whether software or network had to be assumed."""
        return bool(self.step.assumed & {"framework", "network"})

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


def seconds(one: Measured, constants: Mapping[str, float], kinds: dict[object, DeviceFacts]) -> float:
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
    kinds: dict[object, DeviceFacts] = {}
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


def regrets(rows: Sequence[Measured], predicted: Sequence[float]) -> dict[str, list[tuple[float, int]]]:
    """By source, for each model, size and batch with several layouts: how much slower the layout predicted best is than
    the one measured best, as a fraction, and the number of layouts."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, one in enumerate(rows):
        a, work = one.step.work.architecture, one.step.work
        key = (one.source, a.num_hidden_layers, a.hidden_size, one.step.layout.ranks, work.global_batch, work.sequence,
               work.precision, a.vocab_size, one.row.get("date_or_version"))  # fmt: skip
        groups[key].append(i)
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for members in groups.values():
        layouts = len({rows[i].step.layout for i in members})
        if layouts < 2:
            continue
        first = min(members, key=lambda i: predicted[i])
        best = min(rows[i].seconds for i in members)
        found[rows[first].source].append((rows[first].seconds / best - 1, layouts))
    return found


def _slices(rows: Sequence[Measured]) -> Iterator[tuple[str, list[int]]]:
    """(name, numbers of its rows): all, kinds of runs, sources, chips."""
    kinds: list[tuple[str, Callable[[Measured], bool]]] = [
        ("all", lambda one: True),
        ("tensor or pipeline parallel", lambda one: one.step.layout.tensor > 1 or one.step.layout.pipeline > 1),
        ("FSDP, ZeRO or DDP alone", lambda one: one.step.layout.tensor == one.step.layout.pipeline == 1 < one.ranks),
        ("one device", lambda one: one.ranks == 1),
        ("dense, software stated, network stated or one node", lambda one: one.is_dense and not one.is_guessed),
        ("mixtures of experts", lambda one: bool(one.step.work.architecture.num_local_experts)),
        ("LoRA and QLoRA", lambda one: one.step.work.trained_fraction < 1.0),
        ("cards (GeForce, RTX, L4, L40S)", lambda one: one.step.device.kind in ("geforce", "ada")),
        ("8 and 4 bits", lambda one: one.is_low),
        ("software assumed", lambda one: "framework" in one.step.assumed),
        ("network assumed", lambda one: "network" in one.step.assumed),
    ]
    kinds += [(f"software: {name}", lambda one, n=name: one.step.framework == n) for name in get_args(Framework)]
    for name in dict.fromkeys(one.source for one in rows):
        kinds.append((f"source: {name}", lambda one, n=name: one.source == n))
    for name in dict.fromkeys(one.step.device.name for one in rows):
        kinds.append((f"chip: {name}", lambda one, n=name: one.step.device.name == n))
    for name, chosen in kinds:
        found = [i for i, one in enumerate(rows) if chosen(one)]
        if found:
            yield name, found


def _left_out(one: Measured, by: str) -> str:
    names = {"publisher": one.source.split()[0], "framework": one.step.framework, "chip": one.step.device.name,
             "model": one.row.get("model") or "?", "none": ""}  # fmt: skip
    return names.get(by, one.source)


def predict_left_out(rows: Sequence[Measured], by: str) -> tuple[list[float], list[float]]:
    """(step times with constants fitted to everything but the row's own source, or whatever `by` says; the same of the
    constant MFU)."""
    predicted, constant = [0.0] * len(rows), [0.0] * len(rows)
    for name in dict.fromkeys(_left_out(one, by) for one in rows):
        others = [one for one in rows if by == "none" or _left_out(one, by) != name]
        fitted = [one for one in others if one.is_good]
        constants = constant_values() if by == "none" or not fitted else fit(fitted, constant_values())
        facts: dict[object, DeviceFacts] = {}
        for i, one in enumerate(rows):
            if _left_out(one, by) == name:
                predicted[i] = seconds(one, constants, facts)
                constant[i] = baseline(one, others) if others else math.nan
    return predicted, constant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", metavar="ROWS.csv", nargs="+")
    parser.add_argument("--fit", action="store_true", help="print the constants fitted to all rows")
    parser.add_argument("--rows", action="store_true", help="print every row's error")
    choices = ("source", "publisher", "framework", "chip", "model", "none")
    parser.add_argument("--by", default="source", choices=choices, help="what is left out together")
    args = parser.parse_args()
    rows, failed = [], []
    try:
        for path in args.csv:
            found, lacking = measured(read_published_rows(path))
            rows += found
            failed += lacking
    except TunemarkError as error:
        print(error, file=sys.stderr)
        return 2
    total = len(rows) + len(failed)
    print(f"{len(rows)} of {total} rows expressed, {len(CONSTANTS)} constants, none of a row, a model or a source")
    for one in failed[:10]:
        print(f"  {one.id}: {one.reason}")
    if args.fit:
        constants = fit([one for one in rows if one.is_good])
        for constant in CONSTANTS:
            print(f"{constant.name:22} {constants[constant.name]:.4g}  (before: {constant.prior:.4g})")
        shipped, refitted = (np.abs(np.expm1(errors(rows, c))).mean() for c in (constant_values(), constants))
        print(f"in sample: {100 * refitted:.1f} %; with the constants shipped: {100 * shipped:.1f} %")
        return 0
    predicted, constant_mfu = predict_left_out(rows, args.by)
    print_step_times(rows, predicted, constant_mfu, args.by)
    print_memory(rows)
    print_regrets(rows, predicted)
    if args.rows:
        print_rows(rows, predicted)
    return 0


def print_step_times(
    rows: Sequence[Measured], predicted: Sequence[float], constant_mfu: Sequence[float], by: str
) -> None:
    how = "with the shipped constants" if by == "none" else f"each {by} predicted from the others"
    print(f"\nStep time, {how}: mean absolute error (%), median in brackets;")
    print("bias: mean logarithm of predicted over measured (%); within: rows inside the bounds that claim 95 %,")
    print(f"marked where {_ENOUGH} rows or more are not within by {100 * _LEAST:.0f} to {100 * _MOST:.0f} %\n")
    print("| rows | n | error | bias | within (%) | mean bounds (%) | constant MFU |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    shipped: dict[object, DeviceFacts] = {}
    inside = [seconds(one, constant_values(), shipped) for one in rows]
    spreads = [one.step.predict().spread for one in rows]
    sources: list[tuple[float, float]] = []
    for name, some in _slices(rows):
        off = [abs(predicted[i] / rows[i].seconds - 1) for i in some]
        mfu = [abs(constant_mfu[i] / rows[i].seconds - 1) for i in some]
        bias = statistics.mean(math.log(predicted[i] / rows[i].seconds) for i in some)
        within = [is_within(rows[i].seconds / predicted[i], spreads[i].low, spreads[i].high) for i in some]
        low, high = (statistics.mean(getattr(spreads[i], side) for i in some) for side in ("low", "high"))
        if name.startswith("source: "):
            sources.append((statistics.mean(off), statistics.mean(mfu)))
        bounds = f"-{100 - 100 * math.exp(-2 * low):.0f} +{100 * math.exp(2 * high) - 100:.0f}"
        print(
            f"| {name} | {len(some)} | {_error(off)} | {100 * bias:+.1f} "
            f"| {_coverage(within)} | {bounds} | {_error(mfu)} |"
        )
    ours, baseline_error = (100 * statistics.mean(pair) for pair in zip(*sources, strict=True))
    print(f"| mean over sources | {len(sources)} | {ours:.1f} | | | | {baseline_error:.1f} |")
    mean = 100 * statistics.mean(abs(p / one.seconds - 1) for p, one in zip(inside, rows, strict=True))
    print(f"\nWith the shipped constants, which may have been fitted to these rows: {mean:.1f} %")


def print_memory(rows: Sequence[Measured]) -> None:
    """Memory has no fitted constants, so that nothing is left out."""
    held = [one for one in rows if one.memory_bytes is not None]
    if not held:
        return
    print("\nMemory of the rank that is published: mean absolute error (%), median in brackets\n")
    print("| rows | n | error | bias | within (%) | worst (%) |\n|---|---:|---:|---:|---:|---:|")
    for name, some in _slices(held):
        if name.startswith(("chip: ", "network", "8 and 4")):
            continue
        logs, within = [], []
        for i in some:
            ratio = (held[i].memory_bytes or math.nan) / predict_logged_memory(held[i].step)
            logs.append(-math.log(ratio))
            spread = held[i].step.predict().spread
            within.append(is_within(ratio, spread.memory_low, spread.memory_high))
        off = [math.expm1(each) for each in logs]
        print(
            f"| {name} | {len(some)} | {_error([abs(x) for x in off])} | {100 * statistics.mean(logs):+.1f} "
            f"| {_coverage(within)} | {100 * max(off, key=abs):+.1f} |"
        )


def predict_logged_memory(step: ConvertedRow) -> float:
    """Bytes of the rank whose memory a log states. Megatron prints its line of an iteration, and the memory in it, on
    the last rank (megatron/training/training.py, print_rank_last), which is in the last stage of a pipeline."""
    if step.framework != "megatron":
        return step.predict().memory_bytes
    return predict_memory(step.work, step.layout, step.device, stage=step.layout.pipeline - 1).total


def is_within(ratio: float, low: float, high: float) -> bool:
    """Whether measured over predicted is at most two standard deviations away on its side."""
    return -2.0 * low <= math.log(ratio) <= 2.0 * high


def print_regrets(rows: Sequence[Measured], predicted: Sequence[float]) -> None:
    print("\nFirst choice among published layouts of one model, size and batch: regret (%)\n")
    print("| source | choices of three layouts or more | mean | worst | all choices | mean |")
    print("|---|---:|---:|---:|---:|---:|")
    every = regrets(rows, predicted)
    for source, found in [*every.items(), ("all", [each for group in every.values() for each in group])]:
        large = [regret for regret, count in found if count >= 3]
        figures = f"{100 * statistics.mean(large):.1f} | {100 * max(large):.1f}" if large else " | "
        mean = f"{100 * statistics.mean(regret for regret, _ in found):.1f}" if found else ""
        print(f"| {source} | {len(large)} | {figures} | {len(found)} | {mean} |")


def print_rows(rows: Sequence[Measured], predicted: Sequence[float]) -> None:
    header = "row | source | software | layout | measured (s) | predicted (s) | off (%) | bounds (s) | assumed"
    print(f"\n| {header} |\n|---|---|---|---|---:|---:|---:|---|---|")
    for one, found in zip(rows, predicted, strict=True):
        off = 100 * (found / one.seconds - 1)
        layout = f"{format_layout(one.step.layout)} mb={one.step.layout.micro_batch}"
        spread = one.step.predict().spread
        bounds = f"{found * math.exp(-2 * spread.low):.4g} to {found * math.exp(2 * spread.high):.4g}"
        mark = "" if is_within(one.seconds / found, spread.low, spread.high) else " (outside)"
        words = ", ".join(sorted(one.step.assumed))
        print(
            f"| {one.step.id} | {one.source} | {one.step.framework} | {layout} | {one.seconds:.4g} | {found:.4g} "
            f"| {off:+.1f}{mark} | {bounds} | {words} |"
        )


def _coverage(within: Sequence[bool]) -> str:
    share = statistics.mean(within)
    mark = "" if len(within) < _ENOUGH or _LEAST <= share <= _MOST else " !"
    return f"{100 * share:.0f}{mark}"


def _error(off: Sequence[float]) -> str:
    return f"{100 * statistics.mean(off):.1f} ({100 * statistics.median(off):.1f})"


if __name__ == "__main__":
    sys.exit(main())
