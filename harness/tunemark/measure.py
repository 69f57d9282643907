"""Run an experiment from plans to results and report: the common part of `tunemark run` and `tunemark.run`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.analysis.prices import read_prices
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Experiment, Plan, check_not_saved, prove_saveable
from tunemark.plugin import Catalog, Launching
from tunemark.plugin.catalog import load
from tunemark.predict.ground import question
from tunemark.predict.search import SearchLog
from tunemark.report import frame, write
from tunemark.report.reading import traces_in
from tunemark.report.words import language
from tunemark.results import Result, Store
from tunemark.sweep import Ready, Watch, make_ready, sweep
from tunemark.trials import choose, predicted
from tunemark.verify import verify

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Results of an experiment, in the order of its runs. is_interrupted: some runs were not started or not finished;
    finished measurements are stored, and running the same experiment again continues from there. not_reported: why a
    requested report could not be written; the measurements are in the store."""

    runs: tuple[Result, ...]
    is_interrupted: bool = False
    not_reported: TunemarkError | None = None

    def frame(self) -> pandas.DataFrame:
        """One row for each run: the columns of report.csv, numbers unrounded, unknown as None."""
        return frame(self.runs)


def measure(experiment: Experiment, plans: Sequence[Plan], catalog: Catalog, watch: Watch) -> Results:
    """Execute the plans of an experiment and, where it names an output, write their report there after each run.

    A `TunemarkError` is raised before any device is used. Neither Ctrl-C, which ends the sweep, nor a report that
    cannot be written makes this function raise.
    """
    prices = read_prices(experiment.prices) if experiment.prices is not None else None
    store = Store(Path(experiment.store))
    store.prove_writable()
    prove_saveable(plans)
    if experiment.redo:
        check_not_saved(plans)
    output = Path(experiment.output) if experiment.output else None
    if output is not None:
        Store.prove_folder(output)
    launching = open_launcher(experiment, plans[0], watch.message) if plans else None
    done: dict[str, Result] = {}

    def ordered() -> tuple[Result, ...]:
        return tuple(done[p.run_id] for p in plans if p.run_id in done)

    def reported() -> TunemarkError | None:
        if output is not None and done:
            try:
                traces = traces_in([experiment.store], ordered())
                write(ordered(), output, catalog, traces=traces, prices=prices, language=language(experiment.language))
            except TunemarkError as error:
                return error
        return None

    if launching is None:
        return Results(runs=())
    is_interrupted, not_reported = False, None
    try:
        plans, searches = chosen(plans, store, catalog, launching, experiment, watch)
        ready = make_ready(plans, store, watch, launching, max_restarts=experiment.max_restarts, searches=searches)
        if experiment.verify:
            ready = [_verify_run(each, experiment, store, catalog, watch) for each in ready]
        for result in sweep(
            ready,
            store,
            catalog,
            repeats=experiment.repeats,
            redo=experiment.redo,
            timeout_s=experiment.timeout,
            calibrate=not experiment.no_calibrate,
            watch=watch,
        ):
            done[result.run_id] = result
            not_reported = reported()
    except KeyboardInterrupt:
        is_interrupted = True
        left = [p for p in plans if p.run_id not in done and store.has_attempt(p.run_id)]
        done.update((p.run_id, store.result(p, catalog)) for p in left)
        not_reported = reported()
    finally:
        launching.close()
    return Results(runs=ordered(), is_interrupted=is_interrupted, not_reported=not_reported)


def chosen(
    plans: Sequence[Plan],
    store: Store,
    catalog: Catalog,
    launching: Launching,
    experiment: Experiment,
    watch: Watch,
) -> tuple[list[Plan], dict[str, SearchLog]]:
    """The plans, each search replaced by its chosen layout, and the logs of the searches by run_id."""
    for plan in plans:
        if plan.strategy.is_search:
            # Fail on a model that cannot fit before any other run makes trials.
            predicted(plan, question(plan, catalog))
    found: list[Plan] = []
    logs: dict[str, SearchLog] = {}
    for plan in plans:
        if plan.strategy.is_search:
            # A breakdown run uses the layout of the run that it belongs to, which comes before it.
            redo = experiment.redo and not plan.spec.breakdown
            one = choose(plan, store, catalog, launching, redo=redo, timeout_s=experiment.timeout, watch=watch)
            plan, logs[plan.run_id] = one.plan, one.log
        found.append(plan)
    return found, logs


def open_launcher(experiment: Experiment, plan: Plan, say: Callable[[str], None]) -> Launching:
    """The launcher of an experiment, which is the same for all its plans."""
    names = tuple(experiment.export.split("+")) if experiment.export else ()
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise BadExperiment(
            what=f"there is no variable {missing[0]!r} to export",
            why=experiment.sources.get("export", ""),
            next="set it, or leave it out of --export; names are joined by plus: --export HF_TOKEN+NCCL_DEBUG",
        )
    opened: Launching = load(plan.launcher.loader)(plan.launcher_options, names, say)
    return opened


def _verify_run(each: Ready, experiment: Experiment, store: Store, catalog: Catalog, watch: Watch) -> Ready:
    wanted = 1 if experiment.redo else experiment.repeats
    done = 0 if experiment.redo else store.finished_attempts(each.plan.run_id, each.fingerprint, verified=True)
    if done >= wanted:
        return each
    return replace(each, verification=verify(each, store, catalog, timeout_s=experiment.timeout, watch=watch))
