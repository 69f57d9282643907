"""tunemark: how many tokens per second does fine-tuning this model reach on that accelerator?

`run`, `scale` and `plan` do from Python what the commands of the same names do:

    results = tunemark.run(model="mistral-tiny", size=[1, 2], steps=12)
    results.runs[0].tokens_per_s.value
    results.frame()                 # a pandas DataFrame: one row for each run
    results.plot()                  # the report's charts; a notebook shows them, and tables for the results themselves

Bad settings raise `tunemark.errors.TunemarkError` before any device is touched. A run that fails is a result with a
status, and every result has a verdict: valid, suspect, unknown or invalid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tunemark.analysis.scaling_types import Scaling
    from tunemark.experiment import Experiment, GridPoint, Plan
    from tunemark.experiment.scaling_batches import ScalingMode
    from tunemark.plugin import Catalog
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.run_experiment import ExperimentResults

__all__ = ["plan", "run", "scale"]
__version__ = "0.1.0"


def run(
    experiment: str | Path | None = None, *, watch: RunObserver | None = None, **settings: Any
) -> ExperimentResults:
    """Measure every run of an experiment and return the results, as objects and (`.frame()`) as a pandas DataFrame.

    experiment: a TOML file. settings: by TOML key, each a value, a list or a range ("256-1024*2"); they override the
    file. watch: receives the progress; nothing is printed. A failed or invalid run raises nothing: its result has a
    status and a verdict.

    Raises `tunemark.errors.TunemarkError` if the experiment cannot be run, before any device is touched, or if the
    report cannot be written, after everything is measured; KeyboardInterrupt after every finished step is stored.
    """
    # Imported on call, because `tunemark --help` imports this package too.
    from tunemark.errors import BadExperiment
    from tunemark.experiment import make_experiment, make_grid_points
    from tunemark.plugin import Catalog

    parsed = make_experiment(settings, experiment)
    if parsed.dry_run:
        raise BadExperiment(what="run(dry_run=True) would measure nothing", next="use tunemark.plan to get the plans")
    return _measure(parsed, make_grid_points(parsed), Catalog(), watch)


def scale(
    experiment: str | Path | None = None, *, mode: ScalingMode, watch: RunObserver | None = None, **settings: Any
) -> tuple[Scaling, ...]:
    """Measure strong or weak scaling of an experiment and return one scaling per group of runs that differ only in
    size. Takes and raises what `run` does; `tunemark.analysis.scaling.compute_scalings` does it for finished runs."""
    from tunemark.analysis.scaling import compute_scalings
    from tunemark.errors import BadExperiment
    from tunemark.experiment import assign_scaling_batches, make_experiment, make_grid_points
    from tunemark.plugin import Catalog

    catalog = Catalog()
    parsed = make_experiment(settings, experiment)
    if parsed.dry_run:
        raise BadExperiment(
            what="scale(dry_run=True) would measure nothing", next="`tunemark scale --dry-run` prints the plans"
        )
    if mode not in ("strong", "weak"):
        raise BadExperiment(what=f"there is no scaling mode {mode!r}", next="mode='strong' or mode='weak'")
    selected, _ = assign_scaling_batches(make_grid_points(parsed), catalog, mode)
    return compute_scalings(_measure(parsed, selected, catalog, watch).runs, mode)


def _measure(
    experiment: Experiment, points: Sequence[GridPoint], catalog: Catalog, watch: RunObserver | None
) -> ExperimentResults:
    from tunemark.experiment import make_plans
    from tunemark.runner.observer import RunObserver
    from tunemark.runner.run_experiment import run_experiment

    results = run_experiment(experiment, make_plans(points, catalog), catalog, watch or RunObserver())
    if results.is_interrupted:
        raise KeyboardInterrupt
    if error := results.refused or results.not_reported:
        raise error
    return results


def plan(experiment: str | Path | None = None, **settings: Any) -> list[Plan]:
    """Every run of an experiment, fully resolved, as `tunemark plan` prints it. Takes what `run` takes."""
    from tunemark.experiment import make_experiment, make_grid_points, make_plans
    from tunemark.launch.interpreter import check_plans
    from tunemark.plugin import Catalog

    plans = make_plans(make_grid_points(make_experiment(settings, experiment)), Catalog())
    check_plans(plans)
    return plans
