"""What all runs of one command share: where they are kept, what starts them, who hears of them, and their limits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunemark.analysis import judge
from tunemark.errors import BadExperiment
from tunemark.experiment import Experiment, Plan
from tunemark.launch import LocalLauncher
from tunemark.plugin import Catalog, LauncherSession
from tunemark.plugin.catalog import load_object
from tunemark.results import Result, Store
from tunemark.runner.observer import RunObserver
from tunemark.temporary import sweep_temporary


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One owner of what runs share. launching: starts their jobs, on this machine by default. timeout_s: the longest
    time that a rank may write nothing. repeats: attempts of each run. redo: measure again what is finished.
    measure_peak: measure the peak of devices whose peak is not published. max_restarts: how often an attempt's
    processes may be restarted. no_wait: refuse to run where another measurement has the device, instead of waiting."""

    store: Store
    catalog: Catalog
    timeout_s: float
    launching: LauncherSession = field(default_factory=lambda: LocalLauncher({}))
    observer: RunObserver = field(default_factory=RunObserver)
    repeats: int = 1
    redo: bool = True
    measure_peak: bool = False
    max_restarts: int = 0
    no_wait: bool = False

    def apart(self, name: str) -> Session:
        """The same for short runs that serve another one: once each, in a store of their own."""
        store = Store(self.store.root / name)
        return replace(self, store=store, repeats=1, redo=True, measure_peak=False, max_restarts=0)

    def silenced(self) -> Session:
        return replace(self, observer=RunObserver())

    def judge(self, plan: Plan, *, series: str | None = None, fingerprint: str | None = None) -> Result:
        """The judged result of a plan's newest series, which is stored beside its attempts too. series, fingerprint:
        of this command's own attempts, where others may have added theirs."""
        result = judge(self.store.result(plan.run_id, series=series, fingerprint=fingerprint), self.catalog, plan)
        self.store.write_result(result)
        return result


def make_session(experiment: Experiment, plan: Plan, catalog: Catalog, observer: RunObserver) -> Session:
    """The session of an experiment. plan: any of its plans, which share one launcher."""
    sweep_temporary()
    return Session(
        store=Store(Path(experiment.store)),
        catalog=catalog,
        timeout_s=experiment.timeout,
        launching=_open_launcher(experiment, plan, observer.message),
        observer=observer,
        repeats=experiment.repeats,
        redo=experiment.redo,
        measure_peak=not experiment.no_measure_peak,
        max_restarts=experiment.max_restarts,
        no_wait=experiment.no_wait,
    )


def _open_launcher(experiment: Experiment, plan: Plan, say: Callable[[str], None]) -> LauncherSession:
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
