"""tunemark: how many tokens per second does fine-tuning this model reach on that accelerator?

From Python, `run` measures what `tunemark run` does, `scale` what `tunemark scale` does, and `plan` says what would be
run:

    results = tunemark.run(model="mistral-tiny", size=[1, 2], steps=12)
    results.runs[0].tokens_per_s.value
    results.frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tunemark.analysis.scaling import Mode, Scaling
    from tunemark.experiment import Plan
    from tunemark.measure import Results
    from tunemark.sweep import Watch

__all__ = ["plan", "run", "scale"]
__version__ = "0.1.0"


def run(experiment: str | Path | None = None, *, watch: Watch | None = None, **settings: Any) -> Results:
    """Measure every run of an experiment and return the results, as objects and (`.frame()`) as a pandas DataFrame.

    experiment: a TOML file. settings: any of them by its TOML key, as a value, a list or a range ("256-1024*2"); they
    win over the file. watch: told of progress; nothing is printed. A run that fails is a result with its status, and
    the verdict of each is its own: nothing is raised for them.

    Raises `tunemark.errors.TunemarkError` for what cannot be carried out, before any device is touched, or for a report
    that cannot be written, after everything is measured; and KeyboardInterrupt after every finished step has been kept.
    """
    # Imported when called: `tunemark --help` imports this package too.
    from tunemark.errors import BadExperiment
    from tunemark.experiment import make_experiment, points, resolve_all
    from tunemark.measure import measure
    from tunemark.plugin import Catalog
    from tunemark.sweep import Watch

    catalog = Catalog()
    asked = make_experiment(settings, experiment)
    if asked.dry_run:
        raise BadExperiment(
            what="run(dry_run=True) would measure nothing", next="use tunemark.plan for the plans alone"
        )
    results = measure(asked, resolve_all(points(asked), catalog), catalog, watch or Watch())
    if results.is_interrupted:
        raise KeyboardInterrupt
    if results.not_reported is not None:
        raise results.not_reported
    return results


def scale(
    experiment: str | Path | None = None, *, mode: Mode, watch: Watch | None = None, **settings: Any
) -> tuple[Scaling, ...]:
    """Measure an experiment at several sizes, strong or weak, and return one scaling for each group that differs in its
    size alone. Takes and raises what `run` does; of results that are there, `tunemark.analysis.scaling.scalings` gives
    the same."""
    from tunemark.analysis.scaling import scalings
    from tunemark.errors import BadExperiment
    from tunemark.experiment import make_experiment, points, resolve_all, scale_points
    from tunemark.measure import measure
    from tunemark.plugin import Catalog
    from tunemark.sweep import Watch

    catalog = Catalog()
    asked = make_experiment(settings, experiment)
    if asked.dry_run:
        raise BadExperiment(
            what="scale(dry_run=True) would measure nothing", next="`tunemark scale --dry-run` prints the plans"
        )
    if mode not in ("strong", "weak"):
        raise BadExperiment(what=f"there is no scaling of mode {mode!r}", next="mode='strong' or mode='weak'")
    chosen, _ = scale_points(points(asked), catalog, mode)
    results = measure(asked, resolve_all(chosen, catalog), catalog, watch or Watch())
    if results.is_interrupted:
        raise KeyboardInterrupt
    if results.not_reported is not None:
        raise results.not_reported
    return scalings(results.runs, mode)


def plan(experiment: str | Path | None = None, **settings: Any) -> list[Plan]:
    """Every run of an experiment with everything resolved, as `tunemark plan` prints it. Takes what `run` takes."""
    from tunemark.experiment import make_experiment, points, resolve_all
    from tunemark.plugin import Catalog

    return resolve_all(points(make_experiment(settings, experiment)), Catalog())
