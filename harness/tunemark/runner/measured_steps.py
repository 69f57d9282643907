"""Read runs to learn from: a store of measured runs, or a table of rows with their step times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunemark.analysis.judgement import judge
from tunemark.errors import BadData, BadExperiment, TunemarkError
from tunemark.experiment import make_experiment, make_grid_points
from tunemark.experiment.planning import make_plan
from tunemark.loading import load_runs
from tunemark.plugin import Catalog
from tunemark.plugin.protocols import StatesDeviceFacts
from tunemark.predict.learned_constants import MeasuredStep
from tunemark.predict.plan_conversion import convert_plan
from tunemark.predict.published_rows import UnconvertibleRow, convert_row
from tunemark.predict.row_cells import RowError, read_positive, read_published_rows
from tunemark.predict.search_problem import find_uncalibrated_facts
from tunemark.results import Result
from tunemark_worker.training_settings import TRAINING_SETTINGS

# Settings of training that a prediction depends on.
_PREDICTED = tuple(each for each in TRAINING_SETTINGS if each.name not in ("weights", "seed", "schedule"))


def read_measured_steps(path: Path, catalog: Catalog) -> tuple[list[MeasuredStep], list[str]]:
    """(the runs; a sentence for each that cannot be learned from). path: the folder of a store or report, or a CSV file
    with the columns of `tunemark predict --rows` and `step_time_s`, `tokens_per_s_total` or `tokens_per_s_per_device`.
    Raises `BadData` or `BadStore` where it cannot be read."""
    return _read_store(path, catalog) if path.is_dir() else _read_table(path)


def _read_store(path: Path, catalog: Catalog) -> tuple[list[MeasuredStep], list[str]]:
    found, left = [], []
    loaded = load_runs([path], lambda result: judge(result, catalog))
    for result in loaded.results:
        made = _convert_result(result, catalog)
        if isinstance(made, str):
            left.append(f"{result.run_id}: {made}")
        else:
            found.append(made)
    return found, [*left, *(f"{each.place}: {each.why}" for each in loaded.unread)]


def _convert_result(result: Result, catalog: Catalog) -> MeasuredStep | str:
    """The measured step of a result, or why there is none."""
    if result.slot_tokens_per_s is None:
        return f"it has no rate: {result.status}"
    if result.simulated or result.breakdown or result.verdict == "invalid":
        return "its rate says nothing of the hardware" if result.simulated else "its rate is not comparable"
    flags: dict[str, object] = {each.name: getattr(result, each.stored) for each in _PREDICTED}
    flags |= {"model": result.model, "dataset": result.dataset, "device": result.device, "size": result.size,
              "strategy": result.strategy_requested, "oversubscribe": True}  # fmt: skip
    try:
        if result.chips and not isinstance(catalog.device(result.device), StatesDeviceFacts):
            flags |= {"chip": result.chip, "chips": result.chips}
        (point,) = make_grid_points(make_experiment(flags))
        plan = make_plan(point, catalog)
        work = convert_plan(plan)
        if isinstance(work, str):
            return work
        facts = find_uncalibrated_facts(plan, plan.launch, is_learned=False)
    except BadExperiment as error:
        return error.one_line()
    except TunemarkError as error:
        return str(error).partition("\n")[0]
    if plan.strategy.is_search:
        return "its layout was searched for"
    seconds = work[0].global_batch * work[0].sequence / result.slot_tokens_per_s.value
    return MeasuredStep(name=result.run_id, work=work[0], layout=work[1], device=facts, seconds=seconds)


def _read_table(path: Path) -> tuple[list[MeasuredStep], list[str]]:
    found, left = [], []
    for row in read_published_rows(path):
        step = convert_row(row)
        if isinstance(step, UnconvertibleRow):
            left.append(f"{step.id}: {step.reason}")
            continue
        try:
            seconds = _read_seconds(row, step.work.global_batch * step.work.sequence, step.layout.ranks)
        except RowError as error:
            left.append(f"{step.id}: {error}")
            continue
        if seconds is None:
            left.append(f"{step.id}: it states no step time and no rate")
            continue
        found.append(
            MeasuredStep(name=step.id, work=step.work, layout=step.layout, device=step.device, seconds=seconds)
        )
    if not found and not left:
        raise BadData(what=f"{path} has no rows", next="give measured runs to learn from")
    return found, left


def _read_seconds(row: Mapping[str, str], tokens: int, ranks: int) -> float | None:
    total, each = read_positive(row, "tokens_per_s_total"), read_positive(row, "tokens_per_s_per_device")
    rate = total or (each * ranks if each else None)
    return tokens / rate if rate else read_positive(row, "step_time_s")
