"""`tunemark predict`: step time and memory, predicted by formulas or by stepping each plan under fake tensors.

Every figure is a prediction; a row that cannot be expressed has a reason instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tunemark.cli.experiment_arguments import add_experiment_arguments, parse_experiment, print_unused
from tunemark.cli.messages import print_json, print_message
from tunemark.cli.terminal import print_result
from tunemark.errors import BadExperiment
from tunemark.experiment import SETTINGS, Plan, make_grid_points
from tunemark.experiment.planning import make_possible_plans
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import GIB
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.predict import Prediction
    from tunemark.predict.memory_fit import MemoryFit
    from tunemark.predict.published_rows import ConvertedRow, UnconvertibleRow
    from tunemark.predict.simulation import SimulatedRank, Simulation, SimulationFailed


ENGINES = ("analytic", "simulated")
_UNKNOWN = dict.fromkeys(("step_time_s", "tokens_per_s_per_device", "memory_bytes"))

EXAMPLES = (
    (
        "tunemark predict --model mistral-7b --device cuda:8 --chip H100 --chips 8 --oversubscribe --strategy fsdp",
        "a device that is not here",
    ),
    ("tunemark predict --rows published.csv", "models, devices and layouts, one per row"),
)

# What only a measurement uses, or a plan.
_UNUSED = ("trials", "verify", "repeats", "timeout", "export", "max_restarts", "redo", "no_wait", "no_measure_peak",
           "store", "output", "language", "no_redact", "dry_run", "prices", "epochs")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunemark predict [EXPERIMENT | --rows FILE.csv] [OPTIONS]"
    parser.add_argument("--rows", metavar="FILE.csv", help="models, devices and layouts, one per row, with a header")
    parser.add_argument(
        "--learned",
        action="store_true",
        help="predict rows with what `tunemark calibrate --from` learned of their chip and trainer",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="analytic",
        help="analytic: closed formulas, takes microseconds. simulated: steps the real model under fake tensors, takes "
        "seconds per distinct rank, and counts each such rank's memory, FLOPs and collectives; the step time is that "
        "of the formulas (default: analytic)",
    )
    add_experiment_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    return _predict_rows(args) if args.rows is not None else _predict_plans(args)


def _predict_rows(args: argparse.Namespace) -> int:
    # Heavy, and not needed by --help.
    from tunemark.predict.published_rows import convert_row
    from tunemark.predict.row_cells import read_published_rows

    given = [s.flag for s in SETTINGS if s.name != "json" and getattr(args, s.name) is not None]
    if args.experiment is not None or given:
        raise BadExperiment(
            what="rows and an experiment cannot be predicted together",
            why=f"--rows {args.rows}, and {args.experiment or given[0]}",
            next="leave one of them out",
        )
    if args.engine == "simulated":
        raise BadExperiment(
            what="rows cannot be simulated",
            why=f"--rows {args.rows} --engine simulated: a row has only dimensions, a simulation steps model code",
            next="leave --engine out, or give the plan by --model, --device and --strategy",
        )
    rows = read_published_rows(args.rows)
    installed = Catalog().models()
    models = {m.pretrained.lower(): m.architecture for m in installed.values() if m.pretrained}
    models.update((name.lower(), model.architecture) for name, model in installed.items())
    found = [_row_prediction(convert_row(row, models), bool(args.learned)) for row in rows]
    failed = sum("reason" in row for row in found)
    _print(found, bool(args.json), _predictions_text)
    if failed:
        print_message(f"{failed} of {len(found)} rows cannot be expressed")
    return 0


def _predict_plans(args: argparse.Namespace) -> int:
    """Predict each run of an experiment for its device, on this machine or elsewhere."""
    experiment = parse_experiment(args)
    print_unused(experiment, "predict", _UNUSED, "one step is predicted, nothing is measured or written")
    catalog = Catalog()
    plans, misfits = make_possible_plans(make_grid_points(experiment), catalog)
    if misfits and not plans:
        raise misfits[0]
    for words in dict.fromkeys(map(str, misfits)):
        print_message(f"tunemark: {words}")
    rows = [_predict_plan(plan, catalog) for plan in plans]
    if args.engine == "analytic":
        _print(rows, experiment.json, _predictions_text)
        return 0
    found = iter(_simulate([plan for plan in plans if not plan.strategy.is_search]))
    rows = [row if plan.strategy.is_search else _merge(row, next(found)) for plan, row in zip(plans, rows, strict=True)]
    _print(rows, experiment.json, _simulations_text)
    failed = sum("reason" in row for row in rows)
    if failed:
        print_message(f"{failed} of {len(rows)} plans were not simulated")
    return 0


def _simulate(plans: Sequence[Plan]) -> Sequence[Simulation | SimulationFailed]:
    # Heavy, and not needed by formulas.
    from tunemark.predict.simulation import select_representative_ranks, simulate_all

    ranks = sum(len(select_representative_ranks(plan.axes, plan.strategies)) for plan in plans)
    print_message(f"stepping {ranks} ranks of {len(plans)} plans under fake tensors, unless cached")
    return simulate_all(plans)


def _predict_plan(plan: Plan, catalog: Catalog) -> dict[str, Any]:
    from tunemark.predict.memory_fit import judge_fit
    from tunemark.predict.plan_prediction import predict_plan

    spec = plan.spec
    facts = {"id": plan.run_id, "model": spec.model, "device": f"{spec.device}:{spec.size}", "strategy": spec.strategy}
    found = predict_plan(plan)
    fit = judge_fit(plan, catalog, found)
    if isinstance(found, str):
        return {**facts, **_UNKNOWN, **_fit_row(fit), "reason": found}
    hardware = found.hardware
    assumptions = [hardware.source, *hardware.facts.assumptions]
    words = {"framework": plan.prediction.framework or "ours", "assumptions": assumptions}
    return {**facts, **_figures(found.predicted), **_fit_row(fit), **words}


def _fit_row(fit: MemoryFit | None) -> dict[str, Any]:
    """usable_memory_bytes: of each rank. fit: whether the predicted memory is within it, and what would be; None where
    that is not known."""
    if fit is None:
        return {"usable_memory_bytes": None, "fit": None, "fit_words": None}
    return {"usable_memory_bytes": fit.usable_bytes, "fit": fit.outcome, "fit_words": fit.words()}


# Figures of the formulas that a simulation replaces.
_REPLACED = ("flops", "communicated_bytes", "communicated_by_axis_bytes", "memory_bytes", "memory_low_bytes",
            "memory_high_bytes", "bytes")  # fmt: skip


def _merge(row: Mapping[str, Any], found: Simulation | SimulationFailed) -> dict[str, Any]:
    """A plan's analytic row with the simulation's figures, except for the step time and what derives from it. Memory
    has no bounds: it is what tensors hold, and what an allocator adds is not known."""
    from tunemark.predict.simulation import SimulationFailed

    names = {"flops", "communicated_bytes", "memory_bytes"}
    if isinstance(found, SimulationFailed):
        kept = {name: row[name] for name in ("id", "model", "device", "strategy")}
        return {**kept, "engine": "simulated", **_UNKNOWN, "reason": f"not simulated: {found.why}"}
    merged = {name: value for name, value in row.items() if name not in (*_REPLACED, "reason", "engine")}
    if "reason" in row:
        # Only the step time is missing.
        merged["step_time_reason"] = row["reason"]
    return {
        **merged,
        "engine": "simulated",
        "engines": {**dict.fromkeys(sorted(names), "simulated"), "step_time_s": "analytic"},
        "flops": found.flops,
        "communicated_bytes": found.sent_bytes,
        "memory_bytes": found.bytes.total,
        "memory_low_bytes": None,
        "memory_high_bytes": None,
        "bytes": asdict(found.bytes),
        **_refit(row, found.bytes.total),
        "cached": found.cached,
        "ranks": [_rank_row(rank) for rank in found.ranks],
    }


def _refit(row: Mapping[str, Any], memory_bytes: float) -> dict[str, Any]:
    """The fit of the simulation's memory, which has no bounds; the change that would help is the formulas'."""
    from tunemark.predict.memory_fit import compare_memory

    usable = row.get("usable_memory_bytes")
    if usable is None:
        return {}
    fit = compare_memory(memory_bytes, memory_bytes, memory_bytes, usable)
    return {"fit": fit.outcome, "fit_words": fit.words() if fit.outcome != row["fit"] else row["fit_words"]}


def _rank_row(rank: SimulatedRank) -> dict[str, Any]:
    return {
        "rank": rank.rank,
        "flops": rank.total_flops,
        "flops_by_operator": dict(rank.flops),
        "communicated_bytes": rank.sent_bytes,
        "collectives": [{**asdict(each), "sent_bytes": each.sent_bytes} for each in rank.collectives],
        "memory_bytes": rank.bytes.total,
        "bytes": asdict(rank.bytes),
        "peak_phase": rank.peak_phase,
        "peak_operator": rank.peak_operator,
    }


def _row_prediction(one: ConvertedRow | UnconvertibleRow, is_learned: bool) -> dict[str, Any]:
    """The prediction of a row with its bounds, or the reason why there is none; null is unknown."""
    from tunemark.predict.learned_constants import find_learned
    from tunemark.predict.memory_fit import compare_memory
    from tunemark.predict.published_rows import UnconvertibleRow, format_layout
    from tunemark.predict.search_problem import USABLE_MEMORY_FRACTION

    if isinstance(one, UnconvertibleRow):
        return {"id": one.id, **_UNKNOWN, "reason": one.reason}
    words = {"strategy": format_layout(one.layout), "assumptions": list(one.assumptions)}
    if is_learned and (learned := find_learned(one.device.name, one.framework)):
        one = replace(one, device=learned.apply(one.device))
        words["assumptions"] = [*one.assumptions, one.device.assumptions[-1]]
    predicted, memory_bytes = one.predict(), one.device.memory_bytes
    fit = None
    if memory_bytes is not None:
        usable = USABLE_MEMORY_FRACTION * memory_bytes
        fit = compare_memory(predicted.memory_bytes, *predicted.memory_bounds_bytes, usable)
    return {"id": one.id, **_figures(predicted), **_fit_row(fit), "framework": one.framework, **words}


def _figures(predicted: Prediction) -> dict[str, Any]:
    """The predicted figures with bounds of two standard deviations, and their breakdowns."""
    low, high = predicted.step_time_bounds_s
    least, most = predicted.memory_bounds_bytes
    tokens = predicted.tokens_per_step / predicted.ranks
    return {
        "engine": "analytic",
        "step_time_s": predicted.step_time_s,
        "step_time_low_s": low,
        "step_time_high_s": high,
        "tokens_per_s_per_device": predicted.tokens_per_s_per_device,
        "tokens_per_s_per_device_low": tokens / high,
        "tokens_per_s_per_device_high": tokens / low,
        "memory_bytes": predicted.memory_bytes,
        "memory_low_bytes": least,
        "memory_high_bytes": most,
        "flops": predicted.flops,
        "communicated_bytes": sum(predicted.communicated_bytes.values()),
        "communicated_by_axis_bytes": dict(predicted.communicated_bytes),
        "seconds": asdict(predicted.seconds),
        "bytes": asdict(predicted.bytes),
    }


def _print(found: Sequence[dict[str, Any]], is_json: bool, text: Callable[[Sequence[dict[str, Any]]], str]) -> None:
    if not is_json:
        print_result(text(found))
        return
    for row in found:
        print_json(json.dumps(row, allow_nan=False))


def _predictions_text(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each prediction by formulas."""
    header = ["id", "strategy", "step time (s)", "tokens/s per device (slots)", "memory of the fullest rank (GiB)",
              "of (GiB)"]  # fmt: skip
    rows = []
    for row in found:
        if "reason" in row:
            rows.append([row["id"], f"cannot be expressed: {row['reason']}", "", "", "", ""])
            continue
        figures = ("step_time{}_s", ".3g", 1), ("tokens_per_s_per_device{}", ",.0f", 1), ("memory{}_bytes", ".4g", GIB)
        usable = "unknown"
        if row["usable_memory_bytes"] is not None:
            usable = f"{row['usable_memory_bytes'] / GIB:.4g}: {row['fit']}"
        rows.append([row["id"], row["strategy"], *(_format_bounds(row, *figure) for figure in figures), usable])
    words = (
        "Predicted by formulas, nothing was run; brackets hold bounds of two standard deviations. The last column is "
        "the memory that a rank may use."
    )
    return "\n\n".join([words, markdown_table(header, rows, "<<>>><"), *_fit_lines(found)])


def _fit_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What does not fit, and what would."""
    return [escape(f"{row['id']}: {row['fit_words']}") for row in found if row.get("fit") not in (None, "fits")]


def _simulations_text(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each rank that was stepped under fake tensors."""
    header = ["id", "strategy", "rank", "FLOPs of matrices (GFLOP)", "sent (MB)", "collectives", "memory (GiB)",
              "phase of peak memory", "step time (s), analytic"]  # fmt: skip
    rows = []
    for row in found:
        if "reason" in row:
            rows.append([row["id"], row["strategy"], "", row["reason"], *[""] * 5])
            continue
        step = f"unknown: {row.get('step_time_reason', '')}"
        if row["step_time_s"] is not None:
            step = _format_bounds(row, "step_time{}_s", ".3g", 1)
        for rank in row["ranks"]:
            kinds: dict[str, int] = {}
            for each in rank["collectives"]:
                kinds[each["kind"]] = kinds.get(each["kind"], 0) + each["count"]
            rows.append([
                row["id"], row["strategy"], str(rank["rank"]), f"{rank['flops'] / 1e9:,.4g}",
                f"{rank['communicated_bytes'] / 1e6:,.4g}",
                ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none",
                f"{rank['memory_bytes'] / GIB:.4g}", f"{rank['peak_phase']} ({rank['peak_operator']})", step,
            ])  # fmt: skip
    words = (
        "FLOPs, bytes sent and memory by the simulated engine: each distinct rank was stepped under fake tensors;\n"
        "memory is what its tensors hold. The step time is the analytic engine's, with bounds of two standard\n"
        "deviations in brackets."
    )
    return "\n\n".join([words, markdown_table(header, rows, "<<>>><><>"), *_fit_lines(found)])


def _format_bounds(row: Mapping[str, Any], name: str, spec: str, unit: float) -> str:
    """A predicted figure with its bounds. name: of the figure, with a place for `_low` and `_high`."""
    value, low, high = (format(row[name.format(part)] / unit, spec) for part in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"
