"""Run an experiment from plans to results and report: the common part of `tunemark run` and `tunemark.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.analysis.prices import read_prices
from tunemark.errors import BadExperiment, TunemarkError
from tunemark.experiment import Experiment, Plan, check_not_saved_before, check_save_writable
from tunemark.loading import load_traces
from tunemark.plugin import Catalog
from tunemark.report import make_data_frame, write_report
from tunemark.report.notebook import ChartDrawings, draw_charts, results_html, results_markdown
from tunemark.report.translation import parse_language
from tunemark.results import Result, Store
from tunemark.results.mfu import share_measured_peaks
from tunemark.runner.observer import RunObserver
from tunemark.runner.preparation import Preparation, PreparedRun, warn_unrestored
from tunemark.runner.search_trials import choose_layout, make_selected_plan, predict_search
from tunemark.runner.session import Session, make_session
from tunemark.runner.sweep import run_sweep
from tunemark.runner.verification import verify_if_needed

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentResults:
    """Results of an experiment, in the order of its runs. is_interrupted: some runs were not started or not finished;
    finished measurements are stored, and running the same experiment again continues from there. refused: why the runs
    that are left were not started, where something had been measured before. not_reported: why a requested report could
    not be written; the measurements are in the store."""

    runs: tuple[Result, ...]
    is_interrupted: bool = False
    refused: TunemarkError | None = None
    not_reported: TunemarkError | None = None

    def frame(self) -> pandas.DataFrame:
        """One row for each run: the columns of report.csv, numbers unrounded, unknown as None."""
        return make_data_frame(self.runs)

    def plot(self) -> ChartDrawings:
        """The report's charts as SVG, by name; a notebook shows them."""
        return draw_charts(self.runs, Catalog())

    def _repr_markdown_(self) -> str:
        return results_markdown(self.runs)

    def _repr_html_(self) -> str:
        return results_html(self.runs)


def run_experiment(
    experiment: Experiment, plans: Sequence[Plan], catalog: Catalog, watch: RunObserver
) -> ExperimentResults:
    """Execute the plans of an experiment and, where it names an output, write their report there after each run.

    A `TunemarkError` is raised before anything is measured. Neither Ctrl-C nor an error that ends the sweep later makes
    this function raise, nor does a report that cannot be written.
    """
    prices = read_prices(experiment.prices) if experiment.prices is not None else None
    Store(Path(experiment.store)).prove_writable()
    check_save_writable(plans)
    if experiment.redo:
        check_not_saved_before(plans)
    output = Path(experiment.output) if experiment.output else None
    if output is not None:
        if output.resolve() == Path(experiment.store).resolve():
            raise BadExperiment(
                what=f"the report and the store cannot both be {output}",
                why="a report in a store would be read instead of its runs",
                next="name another folder with --output; one in the store will do",
            )
        Store.prove_folder(output)
    if not plans:
        return ExperimentResults(runs=())
    session = make_session(experiment, plans[0], catalog, watch)
    done: dict[str, Result] = {}

    def ordered() -> tuple[Result, ...]:
        return tuple(share_measured_peaks([done[p.run_id] for p in plans if p.run_id in done]))

    def reported() -> TunemarkError | None:
        if output is not None and done:
            results, language = ordered(), parse_language(experiment.language)
            traces = load_traces([session.store.root], results)
            try:
                write_report(
                    results,
                    output,
                    catalog,
                    traces=traces,
                    prices=prices,
                    language=language,
                    is_redacted=not experiment.no_redact,
                )
            except TunemarkError as error:
                return error
        return None

    is_interrupted, refused, not_reported = False, None, None
    ready: list[PreparedRun] = []
    try:
        ready = _prepare(plans, session, experiment)
        for result in run_sweep(ready, session):
            done[result.run_id] = result
            not_reported = reported()
    except (KeyboardInterrupt, TunemarkError) as error:
        chosen = {p.run_id: p for p in [*plans, *(each.plan for each in ready)]}
        left = [p for run, p in chosen.items() if run not in done and session.store.has_attempt(run)]
        if isinstance(error, TunemarkError):
            if not ready or not (done or left):
                raise
            refused = error
        is_interrupted = refused is None
        done.update((p.run_id, session.judge(p)) for p in left)
        not_reported = reported()
    finally:
        session.launching.close()
    return ExperimentResults(runs=ordered(), is_interrupted=is_interrupted, refused=refused, not_reported=not_reported)


def _prepare(plans: Sequence[Plan], session: Session, experiment: Experiment) -> list[PreparedRun]:
    """Prepare all runs, choose the layouts of searches by trials, and verify strategies where that is asked for."""
    # A model that cannot fit is refused before anything is made, and everything else before any run makes trials.
    searches = {plan.run_id: predict_search(plan, session) for plan in plans if plan.strategy.is_search}
    warn_unrestored(plans, session)
    preparation = Preparation(session=session)
    ready = [preparation.prepare(plan) for plan in plans]
    for number, plan in enumerate(plans):
        if plan.strategy.is_search:
            log = choose_layout(searches[plan.run_id], ready[number], session)
            ready[number] = preparation.prepare(make_selected_plan(plan, log, session), log)
    return [verify_if_needed(each, session, is_asked=experiment.verify) for each in ready]
