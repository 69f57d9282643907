"""The hooks, prefix `tunemark_`. Every plugin's implementation is called and its result used; none is first-result.

A plugin is a module (or object) named in the entry-point group `tunemark`; it decorates its functions with `hookimpl`.
All are called in the parent process, which never imports torch for them, with standard output sent to standard error.

A hook that returns descriptors or devices is called at most once in a command. Where it raises, exits or returns
anything but a sequence of the right type, its whole answer is ignored, `tunemark list plugins` shows whose and why, and
the other plugins stay usable. A name that two plugins claim can be used from neither; looking it up is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from tunemark.plugin.descriptors import (
    Dataset,
    Finding,
    Format,
    Importer,
    Launcher,
    Model,
    ModelSource,
    Monitor,
    Strategy,
    Trainer,
)
from tunemark.plugin.exports import Exporter
from tunemark.plugin.protocols import Device

if TYPE_CHECKING:
    from tunemark.experiment.plan import Plan
    from tunemark.results.result import Result

hookspec = pluggy.HookspecMarker("tunemark")
hookimpl = pluggy.HookimplMarker("tunemark")


@hookspec
def tunemark_devices() -> Sequence[Device]:
    """The devices that this plugin can measure, present on this machine or not.

    Called when a device is first looked up. It must not touch a device: `Device.accelerators` detects them."""
    raise NotImplementedError


@hookspec
def tunemark_models() -> Sequence[Model]:
    """Descriptors of this plugin's models.

    Called when a model is first looked up. `runtime` is imported only in the worker."""
    raise NotImplementedError


@hookspec
def tunemark_model_sources() -> Sequence[ModelSource]:
    """Sources of models that are named by a reference (`NAME:REFERENCE`). Called once, when one is looked up."""
    raise NotImplementedError


@hookspec
def tunemark_datasets() -> Sequence[Dataset]:
    """Descriptors of this plugin's datasets.

    Called when a dataset is first looked up. `loader` is imported when the dataset is prepared, before any device is
    touched."""
    raise NotImplementedError


@hookspec
def tunemark_strategies() -> Sequence[Strategy]:
    """Descriptors of this plugin's strategies, with the functions that a plan calls.

    Called when a strategy is first looked up. `runtime` is imported only in the worker."""
    raise NotImplementedError


@hookspec
def tunemark_trainers() -> Sequence[Trainer]:
    """Descriptors of other programs' training loops.

    Called when a trainer is first looked up. `runtime` is imported only in the worker."""
    raise NotImplementedError


@hookspec
def tunemark_launchers() -> Sequence[Launcher]:
    """The launchers of this plugin, which start jobs on this machine or on others.

    Called when a launcher is first looked up. `loader` is called once per sweep."""
    raise NotImplementedError


@hookspec
def tunemark_exporters() -> Sequence[Exporter]:
    """The places to which this plugin copies finished runs: trackers, and files for queries.

    Called by `tunemark export` and `tunemark list exporters`. What an exporter names is imported and called once, in
    the parent, with all runs; no run is under way then."""
    raise NotImplementedError


@hookspec
def tunemark_formats() -> Sequence[Format]:
    """The report formats of this plugin.

    Called when a report is written. `render` gets the whole report and returns bytes; it writes no files."""
    raise NotImplementedError


@hookspec
def tunemark_importers() -> Sequence[Importer]:
    """This plugin's readers of other tools' results.

    Called when `tunemark audit` or a report reads a file. A reader must not raise on a file of another format."""
    raise NotImplementedError


@hookspec
def tunemark_monitors() -> Sequence[Monitor]:
    """The libraries that sample devices while jobs run on them.

    Called when a device names one of them by `monitor_target`. `loader` is called once for each attempt; exceptions of
    the reader are stored with the samples and never affect the job."""
    raise NotImplementedError


@hookspec
def tunemark_record(plan: Plan, record: Mapping[str, Any]) -> None:
    """Observe one record of a running attempt, as soon as the parent has read it.

    Called for each record of each rank, between two reads, so it must be fast. An exception is printed once as a
    warning and does not affect the run."""


@hookspec
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    """Findings to add to a result. Called once per result, after the estimates; `plan` is None for an imported row.
    An exception becomes a finding that names the plugin and makes the verdict unknown."""
    raise NotImplementedError
