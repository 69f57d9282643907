"""Find the largest micro-batch that fits and the fastest one: by prediction first, then in fresh processes.

Each cell is an ordinary run of a few steps in the store, and so is one that runs out of memory. The search goes to the
border between what fits and what does not; then the powers of two below it are measured for their rates, and the two
fastest take turns for as many attempts as were asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemark.analysis.fit import MeasuredCell, judge_cell
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Experiment, GridPoint, Plan, make_grid_points
from tunemark.experiment.device_choice import expand_sizes
from tunemark.experiment.planning import make_plan
from tunemark.experiment.settings import SETTINGS
from tunemark.number_format import GIB, format_gib, percent_text
from tunemark.plugin import Catalog, LimitsMemory
from tunemark.predict.measured_memory import digest_memory_kind, fit_measured_memory, store_measured_memory
from tunemark.predict.memory_fit import predict_formula_memory, predict_plan_memory
from tunemark.predict.search_problem import find_base_facts
from tunemark.results import Result, Store
from tunemark.results.mfu import share_measured_peaks
from tunemark.results.studies import FitCell, FitRow, FitStudy, store_study
from tunemark.runner.batch_search import BatchSearch
from tunemark.runner.observer import RunObserver, run_title
from tunemark.runner.preparation import Preparation
from tunemark.runner.session import Session, make_session
from tunemark.runner.sweep import run_sweep

_SOURCE = "tunemark fit"
# Settings of this command that the answer leaves to the next.
_OF_THE_COMMAND = ("output", "store", "dry_run", "json", "language", "no_redact", "redo", "no_wait", "memory")
# The largest micro-batch that is considered, and how many cells a row may take to find the border.
MAX_MICRO_BATCH = 4096
_MAX_PROBES = 14
# A cell's steps where the experiment sets no end: enough to see the peak, and a rate.
_SHORT: Mapping[str, Any] = {"steps": 8, "warmup": 2, "budget": None, "target_interval": 0.0}
_LEFT_OUT: Mapping[str, Any] = {"breakdown": False, "sample": None, "save": None, "evaluate": None}
# Share of the memory that is free now, beyond which the kernel would end other programs, not only ours.
_SAFE_SHARE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRow:
    """One combination of the settings other than the micro-batch. candidates: micro-batches that can be planned.
    first: the plan of the smallest. given: whether the candidates were given."""

    point: GridPoint
    settings: dict[str, str]
    candidates: tuple[int, ...]
    first: Plan
    is_given: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFit:
    """limit_bytes: what each process of a job may use, None where that is not known; limit: in words."""

    rows: tuple[PlannedRow, ...]
    limit_bytes: int | None
    limit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredFit:
    study: FitStudy
    runs: tuple[Result, ...]
    is_interrupted: bool = False


def plan_fit(experiment: Experiment, catalog: Catalog, free_bytes: int | None) -> PlannedFit:
    """The rows of a map. free_bytes: of this machine's memory, None where unknown. Raises `BadExperiment` where no
    micro-batch of a row can be planned, or a few steps say not what fits."""
    if "bucket" in experiment.axes["batching"]:
        raise BadExperiment(
            what="what fits with --batching bucket cannot be measured in a few steps",
            why="the widest rows of the data, which need most memory, may not be among those of a cell",
            next="--batching pad: all of its rows are as wide as the widest can be",
        )
    sizes = experiment.axes["micro_batch"]
    is_given = "micro_batch" in experiment.sources and len(sizes) > 1
    axes = {**experiment.axes, "micro_batch": (min(sizes) if is_given else 1,)}
    varying = [name for name, values in axes.items() if len(values) > 1]
    alone = replace(experiment, axes=axes, breakdown=False)
    points = [sized for each in make_grid_points(alone) for sized in expand_sizes(each, catalog)]
    limit = _choose_limit(points[0], catalog, free_bytes)
    rows = []
    for point in points:
        limited = _with_values(point, _settle(point) | ({"memory": limit[1]} if limit[1] is not None else {}))
        candidates = tuple(sorted(set(sizes))) if is_given else _list_candidates(limited)
        rows.append(
            PlannedRow(
                point=limited,
                settings={name: str(point[name]) for name in varying},
                candidates=candidates,
                first=make_plan(_with_values(limited, {"micro_batch": candidates[0]}), catalog),
                is_given=is_given,
            )
        )
    processes = rows[0].first.launch.processes
    each = None if limit[0] is None else limit[0] // processes
    words = limit[2] + (f", an equal share for each of {processes} processes" if processes > 1 else "")
    return PlannedFit(rows=tuple(rows), limit_bytes=each, limit=words)


def _settle(point: GridPoint) -> dict[str, Any]:
    """The end of each cell: that of the experiment if it has one, else a few steps."""
    has_end = any(name in point.sources for name in ("steps", "budget", "epochs"))
    return {**_LEFT_OUT, **({} if has_end else _SHORT)}


def _choose_limit(point: GridPoint, catalog: Catalog, free_bytes: int | None) -> tuple[int | None, float | None, str]:
    """(bytes that a job may use, the value of --memory that says so, in words)"""
    plan = make_plan(point, catalog)
    has_bytes, name = plan.accelerator.memory_bytes, f"{plan.device.name}:{plan.accelerator.name}"
    if point["memory"] is not None:
        return has_bytes, point["memory"], f"{point['memory']:g} GiB, by {point.place('memory')}"
    if not isinstance(plan.device, LimitsMemory) or not plan.accelerator.is_present or plan.launcher.is_remote:
        return has_bytes, None, f"what {name} has" + (f", {format_gib(has_bytes)} GiB" if has_bytes else "")
    if not find_base_facts(plan).shares_memory or free_bytes is None:
        return has_bytes, None, f"what {name} has" + (f", {format_gib(has_bytes)} GiB" if has_bytes else "")
    share = min(_SAFE_SHARE * free_bytes, has_bytes or math.inf)
    gib = math.floor(100 * share / GIB) / 100
    words = f"{gib:g} GiB, {_SAFE_SHARE:.0%} of what is free now; --memory sets another limit"
    return round(gib * GIB), gib, words


def _list_candidates(point: GridPoint) -> tuple[int, ...]:
    """All micro-batches, or those that divide the global batch where one was given; ranks share it, so that the plan
    refuses those that do not."""
    whole = point["global_batch"]
    if whole is None:
        return tuple(range(1, MAX_MICRO_BATCH + 1))
    return tuple(size for size in range(1, whole + 1) if whole % size == 0)


def measure_fit(planned: PlannedFit, experiment: Experiment, catalog: Catalog, watch: RunObserver) -> MeasuredFit:
    """Measure the cells. Ctrl-C ends the search with what there is, and the same command continues."""
    Store(Path(experiment.store)).prove_writable()
    first = planned.rows[0].first
    session = make_session(experiment, first, catalog, watch)
    digest = hashlib.sha256(" ".join(row.first.run_id for row in planned.rows).encode()).hexdigest()[:16]
    study = FitStudy(id=digest, title=run_title(first), limit_bytes=planned.limit_bytes, limit=planned.limit, rows=())
    done: dict[str, Result] = {}
    # (predicted, held) bytes by kind, over all rows.
    points: dict[str, list[tuple[float, float]]] = {}
    is_interrupted = False
    try:
        for row in planned.rows:
            search = _RowSearch(row=row, session=session, limit_bytes=planned.limit_bytes, done=done)
            rows = study.rows
            try:
                search.run()
            finally:
                # Also where it was interrupted.
                search.keep_memory(points.setdefault(digest_memory_kind(row.first), []))
                study = _with_rows(study, (*rows, FitRow(settings=row.settings, cells=search.list_cells())))
                store_study(study, session.store.root)
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        session.launching.close()
    return MeasuredFit(
        study=study, runs=tuple(share_measured_peaks(list(done.values()))), is_interrupted=is_interrupted
    )


class _RowSearch:
    """The search of one row. cells: by micro-batch, with the answer of those that were measured."""

    def __init__(self, *, row: PlannedRow, session: Session, limit_bytes: int | None, done: dict[str, Result]) -> None:
        self._row, self._session, self._done = row, session, done
        self._limit_bytes = limit_bytes
        self._preparation = Preparation(session=session)
        self._cells: dict[int, MeasuredCell] = {}

    def list_cells(self) -> tuple[FitCell, ...]:
        return tuple(
            FitCell(
                micro_batch=cell.micro_batch,
                predicted_bytes=cell.predicted_bytes,
                run_id=cell.run_id,
                reason=cell.evidence if cell.answer == "not measured" else "",
            )
            for _, cell in sorted(self._cells.items())
        )

    def run(self) -> None:
        """Find the border, measure the rates below it, and let the two fastest take turns."""
        if self._row.is_given:
            for size in self._row.candidates:
                self._measure(size)
        else:
            self._find_border()
        self._compare_fastest()

    def keep_memory(self, points: list[tuple[float, float]]) -> None:
        """Keep what the cells that fit held over what was predicted, for later plans of this kind. points: those of
        earlier rows of it, to which these are added."""
        for cell in self._cells.values():
            formula = predict_formula_memory(self._plan(cell.micro_batch)) if cell.answer == "fits" else None
            if formula and cell.peak_memory_bytes and not cell.simulated:
                points.append((formula, float(cell.peak_memory_bytes)))
        line = fit_measured_memory(points)
        if line is not None:
            store_measured_memory(self._row.first, line)
            words = f"later plans of this kind predict memory within {percent_text(line.residual)} of what was measured"
            self._session.observer.message(words)

    def _find_border(self) -> None:
        candidates = self._row.candidates
        search = BatchSearch(
            candidates=candidates,
            limit_bytes=self._limit_bytes,
            guess=self._guess(candidates),
            bytes_each=self._predict_each(candidates),
        )
        for _ in range(_MAX_PROBES):
            at = search.choose_next()
            if at is None:
                break
            cell = self._measure(candidates[at])
            if cell.answer == "failed":
                self._session.observer.message(f"micro-batch {cell.micro_batch}: {cell.evidence}; the search ends here")
                break
            search.record(at, cell.answer == "fits", cell.peak_memory_bytes)
        if search.largest < 0:
            return
        largest = candidates[search.largest]
        for size in candidates:
            if size < largest and size & (size - 1) == 0 and size not in self._cells:
                self._measure(size)

    def _guess(self, candidates: Sequence[int]) -> int:
        """Index of the largest candidate whose predicted memory is within the limit; 0 where nothing is known."""
        if self._limit_bytes is None or self._predict(candidates[0]) is None:
            return 0
        low, high = 0, len(candidates)
        while high - low > 1:
            middle = (low + high) // 2
            predicted = self._predict(candidates[middle])
            if predicted is not None and predicted <= self._limit_bytes:
                low = middle
            else:
                high = middle
        return low

    def _predict_each(self, candidates: Sequence[int]) -> float | None:
        """Predicted bytes of each sequence more."""
        small, large = candidates[0], candidates[min(len(candidates) - 1, 15)]
        low, high = self._predict(small), self._predict(large)
        return None if low is None or high is None or large == small else (high - low) / (large - small)

    def _predict(self, size: int) -> float | None:
        try:
            return predict_plan_memory(self._plan(size))
        except TunemarkError:
            return None

    def _plan(self, size: int) -> Plan:
        return make_plan(_with_values(self._row.point, {"micro_batch": size}), self._session.catalog)

    def _measure(self, size: int) -> MeasuredCell:
        """Measure a cell once. One that the plan or the data refuse is not measured, and nothing larger either."""
        predicted = self._predict(size)
        try:
            ready = self._preparation.prepare(self._plan(size))
        except TunemarkError as error:
            cell = MeasuredCell(
                micro_batch=size,
                answer="not measured",
                predicted_bytes=predicted,
                run_id=None,
                evidence=error.one_line(),
            )
        else:
            (result,) = run_sweep([ready], replace(self._session, repeats=1))
            self._done[result.run_id] = result
            cell = judge_cell(
                FitCell(micro_batch=size, predicted_bytes=predicted, run_id=result.run_id), result, self._limit_bytes
            )
        self._cells[size] = cell
        return cell

    def _compare_fastest(self) -> None:
        """The two fastest take turns until each has all its attempts."""
        rated = [cell for cell in self._cells.values() if cell.answer == "fits" and cell.tokens_per_s is not None]
        rated.sort(key=lambda cell: -(cell.tokens_per_s.value if cell.tokens_per_s else 0.0))
        ready = [self._preparation.prepare(self._plan(cell.micro_batch)) for cell in rated[:2]]
        for result in run_sweep(ready, replace(self._session, redo=False)):
            self._done[result.run_id] = result


def _with_rows(study: FitStudy, rows: tuple[FitRow, ...]) -> FitStudy:
    return FitStudy(id=study.id, title=study.title, limit_bytes=study.limit_bytes, limit=study.limit, rows=rows)


def _with_values(point: GridPoint, values: Mapping[str, Any]) -> GridPoint:
    sources = {**point.sources, **dict.fromkeys(values, _SOURCE)}
    return replace(point, values={**point.values, **values}, sources=sources)


def make_answer(row: PlannedRow, micro_batch: int, remarks: Sequence[str]) -> str:
    """The experiment file of a row with the micro-batch that was chosen. remarks: its comments."""
    lines = [f"# {words}" for words in remarks]
    for setting in SETTINGS:
        name = setting.name
        is_own = row.point.sources.get(name) == _SOURCE
        value = micro_batch if name == "micro_batch" else setting.default if is_own else row.point[name]
        if value is not None and value != setting.default and name not in _OF_THE_COMMAND:
            # A text of JSON is one of TOML, too, and so are numbers and true and false.
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def refuse_unknown_limit(planned: PlannedFit) -> None:
    """Raise `BadExperiment` where neither a limit is known nor the device can run out of memory by itself."""
    if planned.limit_bytes is None and find_base_facts(planned.rows[0].first).shares_memory:
        raise BadExperiment(
            what=f"how much memory {planned.rows[0].first.device.name} may use is not known",
            why="without a limit the kernel ends whatever it likes when memory is exhausted",
            next="--memory GiB",
        )
