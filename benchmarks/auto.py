"""Is the planner right? Compares its ranking, its rates after calibration and auto's choice with measurements.

    python benchmarks/auto.py                     # two tiny models on 2 ranks, about 13 minutes on two quiet cores
    python benchmarks/auto.py --short             # one model, fewer layouts, one attempt: a quick look, not to quote
    python benchmarks/auto.py --size 4            # 4 ranks, oversubscribed: only the ranking is judged
    python benchmarks/auto.py --write             # also puts the tables into docs/search.md
    python benchmarks/auto.py --plans --write     # measures nothing: the plans for machines that are not here

Every layout is measured with the same global batch, data and seed, in rounds (each once, then each again), so that a
drift of the machine affects all alike. The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunemark.results import Result

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/search.md"

# The plans in docs/search.md: the sizes of MoAI's tutorial, and a growing cluster.
PLANS = (
    "--device MI250 --size 16,32 --model mistral-7b --global-batch 256 --sequence 1024",
    "--device H100 --size 8,16,32,64,128,256,512,1024 --model mistral-7b --sequence 4096",
)

# Bars: for the ranking, the rate lost by auto's layout, and the error of predicted rates after calibration.
LEAST_SPEARMAN, MOST_REGRET, MOST_ERROR = 0.8, 0.03, 0.15

MODELS = ("mistral-tiny", "llama-2-tiny")
GLOBAL_BATCH, SEQUENCE = 8, 128
# Layouts that auto measures.
TRIALS = 6
# (strategy, micro-batch, checkpointing): different enough to be ranked.
LAYOUTS: Mapping[int, Sequence[tuple[str, int, str]]] = {
    2: (
        ("none", 8, "none"),
        ("ddp", 4, "none"),
        ("ddp", 1, "none"),
        ("fsdp", 4, "none"),
        ("fsdp", 1, "full"),
        ("tp", 8, "none"),
        ("tp", 1, "none"),
        ("pp", 2, "none"),
    ),
    4: (
        ("none", 8, "none"),
        ("ddp", 2, "none"),
        ("fsdp", 2, "none"),
        ("fsdp", 1, "full"),
        ("ddp:2+fsdp:2", 2, "none"),
        ("pp", 2, "none"),
        ("pp:2+fsdp:2", 1, "none"),
        ("fsdp:2+tp:2", 4, "none"),
        ("pp:2+tp:2", 2, "none"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One layout. asked: (strategy, micro-batch, checkpointing). measured, predicted: slot tokens/s with an interval
    each. rates: of its attempts."""

    model: str
    asked: tuple[str, int, str]
    measured: float
    low: float | None
    high: float | None
    predicted: float
    predicted_low: float
    predicted_high: float
    rates: tuple[float, ...]

    @property
    def layout(self) -> str:
        strategy, micro_batch, checkpointing = self.asked
        return f"{strategy} x {micro_batch}" + (f" {checkpointing}" if checkpointing != "none" else "")

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2, choices=sorted(LAYOUTS))
    parser.add_argument("--model", default=",".join(MODELS))
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--short", action="store_true", help="one model, every other layout, one attempt")
    parser.add_argument("--keep-calibration", action="store_true", help="use the existing calibration")
    parser.add_argument("--store", default=None, help="folder for the runs; by default a temporary one")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--plans", action="store_true", help="print the plans of docs/search.md instead")
    args = parser.parse_args()
    if args.plans:
        words = "\n\n".join(plan_text(flags) for flags in PLANS)
        print(words)
        if args.write:
            put("plans", words)
        return 0
    models = args.model.split(",")[: 1 if args.short else None]
    attempts = 1 if args.short else args.attempts
    if not args.keep_calibration:
        command = ["calibrate", "--device", f"cpu:{args.size}", *(["--oversubscribe"] if args.size > 2 else [])]
        subprocess.run([sys.executable, "-m", "tunemark", *command], check=True, stdout=subprocess.DEVNULL)
    texts, is_good = [], True
    with tempfile.TemporaryDirectory() as folder:
        store = args.store or folder
        for model in models:
            layouts = LAYOUTS[args.size][:: 2 if args.short else 1]
            cells, auto = measured(model, args.size, layouts, attempts, args.steps, store)
            text, good = judged(model, args.size, cells, auto)
            print(text, flush=True)
            texts.append(text)
            is_good = is_good and good
    if args.write:
        put("measured", "\n\n".join(texts))
    return 0 if is_good else 1


def put(name: str, words: str) -> None:
    """Replace the text between the marks of this name in the document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}\n{words}\n{end}{after}", encoding="utf-8")


def plan_text(flags: str) -> str:
    """The command of a plan, its table, and the explanation of its last size."""
    words = ["plan", "--strategy", "auto", *flags.split()]
    done = subprocess.run([sys.executable, "-m", "tunemark", *words], capture_output=True, text=True, check=True)
    _, table, *_ = done.stdout.split("\n\n")
    why = [line for line in done.stdout.splitlines() if ": its step of " in line]
    return f"`tunemark {' '.join(words)}`\n\n{table}\n\n{why[-1]}"


def measured(
    model: str, size: int, layouts: Sequence[tuple[str, int, str]], attempts: int, steps: int, store: str
) -> tuple[list[Cell], Result]:
    """Measure every layout and `auto` in rounds; returns the layouts with their predictions, and auto's result."""
    from tunemark.experiment import make_experiment, make_grid_points, make_plan
    from tunemark.plugin import Catalog
    from tunemark.predict.calibration import predict_calibrated
    from tunemark.predict.plan_conversion import convert_plan
    from tunemark.predict.search_problem import make_search_problem
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.run_experiment import run_experiment

    catalog = Catalog()
    flags: dict[str, Any] = {
        "model": model, "device": f"cpu:{size}", "sequence": SEQUENCE, "global_batch": GLOBAL_BATCH, "steps": steps,
        "warmup": 2, "target_interval": 0.0, "repeats": attempts, "store": store, "oversubscribe": True,
        "no_measure_peak": True,
    }  # fmt: skip
    plans = []
    for strategy, micro_batch, checkpointing in layouts:
        given = {"strategy": strategy, "micro_batch": micro_batch, "checkpointing": checkpointing}
        (point,) = make_grid_points(make_experiment({**flags, **given}))
        plans.append(make_plan(point, catalog))
    experiment = make_experiment({**flags, "strategy": "auto", "trials": TRIALS})
    (point,) = make_grid_points(experiment)
    searched = make_plan(point, catalog)
    hardware = make_search_problem(searched, catalog).hardware
    watch = RunObserver(message=lambda text: print(text, file=sys.stderr, flush=True))
    results = {r.run_id: r for r in run_experiment(experiment, [*plans, searched], catalog, watch).runs}
    cells = []
    for plan in plans:
        result = results[plan.run_id]
        if result.slot_tokens_per_s is None:
            raise SystemExit(f"{plan.spec.strategy} was not measured: {result.status}, {result.each_attempt}")
        asked = convert_plan(plan)
        assert not isinstance(asked, str), asked
        work, layout = asked
        facts = hardware.facts if plan.axes or hardware.alone is None else hardware.alone
        found = predict_calibrated(work, layout, facts, hardware.mechanisms)
        low_s, high_s = found.step_time_bounds_s
        rate = result.slot_tokens_per_s
        spec = plan.spec
        cells.append(
            Cell(
                model=model,
                asked=(spec.strategy, spec.micro_batch, spec.checkpointing),
                measured=rate.value,
                low=rate.low,
                high=rate.high,
                predicted=found.tokens_per_s,
                predicted_low=found.tokens_per_step / high_s,
                predicted_high=found.tokens_per_step / low_s,
                rates=tuple(a.tokens_per_s for a in result.each_attempt if a.tokens_per_s),
            )
        )
    return cells, results[searched.run_id]


def judged(model: str, size: int, cells: Sequence[Cell], auto: Result) -> tuple[str, bool]:
    """(table of a model with the bars, whether all are met); for oversubscribed sizes only the ranking counts."""
    rho = spearman([c.predicted for c in cells], [c.measured for c in cells])
    low, high = spread_of_spearman(cells)
    errors = [abs(c.error) for c in cells]
    best = max(cells, key=lambda c: c.measured)
    rate = auto.slot_tokens_per_s
    lines = [
        f"{model}, {size} ranks, global batch {GLOBAL_BATCH} of {SEQUENCE} tokens (slot tokens/s):",
        "",
        "| layout x micro-batch | measured | predicted | off (%) |",
        "|---|---:|---:|---:|",
    ]
    for c in sorted(cells, key=lambda c: -c.measured):
        interval = f" ({c.low:,.0f} to {c.high:,.0f})" if c.low is not None and c.high is not None else ""
        bounds = f" ({c.predicted_low:,.0f} to {c.predicted_high:,.0f})"
        lines.append(
            f"| {c.layout} | {c.measured:,.0f}{interval} | {c.predicted:,.0f}{bounds} | {100 * c.error:+.0f} |"
        )
    is_order_alone = size > 2
    good = rho >= LEAST_SPEARMAN
    lines += ["", f"- Spearman of predicted and measured: {rho:.2f} ({low:.2f} to {high:.2f} by resampling; bar 0.8)"]
    if rate is None or auto.search is None or auto.search.chosen_option is None:
        return "\n".join([*lines, "- auto has no rate"]), False
    noise = statistics.median(noise_of(c.rates) for c in cells)
    interval = f" ({rate.low:,.0f} to {rate.high:,.0f})" if rate.low is not None and rate.high is not None else ""
    one = auto.search.chosen_option
    lines.append(f"- auto ran {one.words()}: {rate.value:,.0f}{interval}; it searched {auto.search.search_s:.0f} s")
    # If auto's layout is among the fixed ones, that rate was measured under the same conditions as the others.
    twin = next((c for c in cells if c.asked == (one.strategy, one.micro_batch, one.checkpointing)), None)
    regret = 1 - (twin.measured / best.measured if twin else rate.value / max(best.measured, rate.value))
    asked = f"by hand that is {twin.layout}, {twin.measured:,.0f}, " if twin else "it is none of these, "
    lines.append(
        f"- {asked}{100 * regret:.1f} % below the best measured, {best.layout} (bar 3 %; attempts of one layout differ "
        f"by {100 * noise:.1f} %)"
    )
    lines.append(
        f"- predicted rates are off by {100 * statistics.fmean(errors):.0f} % in the mean, "
        f"{100 * max(errors):.0f} % at most (bar 15 % each)"
    )
    if not is_order_alone:
        good = good and regret <= max(MOST_REGRET, noise) and max(errors) <= MOST_ERROR
    else:
        lines.append("- processes share cores, so that only the order is looked at")
    return "\n".join(lines), good


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of ranks, with the mean rank for ties (Spearman 1904)."""
    x, y = _ranks(a), _ranks(b)
    return statistics.correlation(x, y) if len(set(a)) > 1 and len(set(b)) > 1 else math.nan


def spread_of_spearman(cells: Sequence[Cell], draws: int = 500) -> tuple[float, float]:
    """The 2.5th and 97.5th percentiles over layouts drawn with replacement (the bootstrap, Efron 1979)."""
    draw = random.Random(0)
    found = []
    for _ in range(draws):
        some = [draw.choice(cells) for _ in cells]
        rho = spearman([c.predicted for c in some], [c.measured for c in some])
        if not math.isnan(rho):
            found.append(rho)
    found.sort()
    return found[int(0.025 * len(found))], found[int(0.975 * len(found))]


def noise_of(rates: Sequence[float]) -> float:
    """The spread of one layout's attempts: the largest rate over the smallest, minus one."""
    return max(rates) / min(rates) - 1 if rates else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(ordered.index(v) + len(ordered) - 1 - ordered[::-1].index(v)) / 2 for v in values]


if __name__ == "__main__":
    sys.exit(main())
