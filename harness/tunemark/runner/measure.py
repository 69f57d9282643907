"""Run an experiment from plans to results and report: the common part of `tunemark run` and `tunemark.run`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.analysis.prices import read_prices
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Experiment, Plan, check_not_saved_before, check_save_writable
from tunemark.loading import load_traces
from tunemark.plugin import Catalog, LauncherSession
from tunemark.plugin.catalog import load_object
from tunemark.predict.search import SearchLog
from tunemark.predict.search_problem import make_search_problem
from tunemark.report import make_data_frame, write_report
from tunemark.report.translation import parse_language
from tunemark.results import Result, Store
from tunemark.runner.search_trials import choose_layout, predict_candidates
from tunemark.runner.sweep import PreparedRun, RunObserver, judge_run, prepare_runs, run_sweep
from tunemark.runner.verification import verify

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentResults:
    """Results of an experiment, in the order of its runs. is_interrupted: some runs were not started or not finished;
    finished measurements are stored, and running the same experiment again continues from there. not_reported: why a
    requested report could not be written; the measurements are in the store."""

    runs: tuple[Result, ...]
    is_interrupted: bool = False
    not_reported: TunemarkError | None = None

    def frame(self) -> pandas.DataFrame:
        """One row for each run: the columns of report.csv, numbers unrounded, unknown as None."""
        return make_data_frame(self.runs)


def run_experiment(
    experiment: Experiment, plans: Sequence[Plan], catalog: Catalog, watch: RunObserver
) -> ExperimentResults:
    """Execute the plans of an experiment and, where it names an output, write their report there after each run.

    A `TunemarkError` is raised before any device is used. Neither Ctrl-C, which ends the sweep, nor a report that
    cannot be written makes this function raise.
    """
    prices = read_prices(experiment.prices) if experiment.prices is not None else None
    store = Store(Path(experiment.store))
    store.prove_writable()
    check_save_writable(plans)
    if experiment.redo:
        check_not_saved_before(plans)
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
                traces = load_traces([store.root], ordered())
                write_report(
                    ordered(),
                    output,
                    catalog,
                    traces=traces,
                    prices=prices,
                    language=parse_language(experiment.language),
                )
            except TunemarkError as error:
                return error
        return None

    if launching is None:
        return ExperimentResults(runs=())
    is_interrupted, not_reported = False, None
    try:
        plans, searches = choose_layouts(plans, store, catalog, launching, experiment, watch)
        ready = prepare_runs(plans, store, watch, launching, max_restarts=experiment.max_restarts, searches=searches)
        if experiment.verify:
            ready = [_verify_run(each, experiment, store, catalog, watch) for each in ready]
        for result in run_sweep(
            ready,
            store,
            catalog,
            repeats=experiment.repeats,
            redo=experiment.redo,
            timeout_s=experiment.timeout,
            calibrate=not experiment.no_measure_peak,
            watch=watch,
        ):
            done[result.run_id] = result
            not_reported = reported()
    except KeyboardInterrupt:
        is_interrupted = True
        left = [p for p in plans if p.run_id not in done and store.has_attempt(p.run_id)]
        done.update((p.run_id, judge_run(p, store, catalog)) for p in left)
        not_reported = reported()
    finally:
        launching.close()
    return ExperimentResults(runs=ordered(), is_interrupted=is_interrupted, not_reported=not_reported)


def choose_layouts(
    plans: Sequence[Plan],
    store: Store,
    catalog: Catalog,
    launching: LauncherSession,
    experiment: Experiment,
    watch: RunObserver,
) -> tuple[list[Plan], dict[str, SearchLog]]:
    """The plans, each search replaced by its chosen layout, and the logs of the searches by run_id."""
    for plan in plans:
        if plan.strategy.is_search:
            # Fail on a model that cannot fit before any other run makes trials.
            predict_candidates(plan, make_search_problem(plan, catalog))
    found: list[Plan] = []
    logs: dict[str, SearchLog] = {}
    for plan in plans:
        if plan.strategy.is_search:
            # A breakdown run uses the layout of the run that it belongs to, which comes before it.
            redo = experiment.redo and not plan.spec.breakdown
            one = choose_layout(plan, store, catalog, launching, redo=redo, timeout_s=experiment.timeout, watch=watch)
            plan, logs[plan.run_id] = one.plan, one.log
        found.append(plan)
    return found, logs


def open_launcher(experiment: Experiment, plan: Plan, say: Callable[[str], None]) -> LauncherSession:
    """The launcher of an experiment, which is the same for all its plans."""
    names = tuple(experiment.export.split("+")) if experiment.export else ()
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise BadExperiment(
            what=f"there is no variable {missing[0]!r} to export",
            why=experiment.sources.get("export", ""),
            next="set it, or leave it out of --export; names are joined by plus: --export HF_TOKEN+NCCL_DEBUG",
        )
    opened: LauncherSession = load_object(plan.launcher.loader)(plan.launcher_options, names, say)
    return opened


def _verify_run(
    each: PreparedRun, experiment: Experiment, store: Store, catalog: Catalog, watch: RunObserver
) -> PreparedRun:
    wanted = 1 if experiment.redo else experiment.repeats
    done = 0 if experiment.redo else store.finished_attempts(each.plan.run_id, each.fingerprint, verified=True)
    if done >= wanted:
        return each
    return replace(each, verification=verify(each, store, catalog, timeout_s=experiment.timeout, watch=watch))
