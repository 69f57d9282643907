"""The hooks, prefix `tunemark_`. A hook answers "who is there?"; every one returns, none is first-result.

A plugin is a module (or object) named in the entry-point group `tunemark`; it marks its functions with `hookimpl`.
All are called in the parent process, which never imports torch for them, with standard output led to standard error.

A hook that says who is there is called at most once in a command. Where it raises, exits or returns anything but a
sequence of what it should, all of that answer is set aside, `tunemark list plugins` says whose and why, and the other
plugins go on. A name that two plugins claim belongs to neither, and whoever asks for it is told so.
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
)
from tunemark.plugin.protocols import Device

if TYPE_CHECKING:
    from tunemark.experiment.plan import Plan
    from tunemark.results.result import Result

hookspec = pluggy.HookspecMarker("tunemark")
hookimpl = pluggy.HookimplMarker("tunemark")


@hookspec
def tunemark_devices() -> Sequence[Device]:
    """The devices that this plugin can measure, present on this machine or not.

    Called when a device is first looked up. It must not touch a device: `Device.accelerators` looks for them."""
    raise NotImplementedError


@hookspec
def tunemark_models() -> Sequence[Model]:
    """The models of this plugin, as facts.

    Called when a model is first looked up. `runtime` is imported in the worker alone."""
    raise NotImplementedError


@hookspec
def tunemark_model_sources() -> Sequence[ModelSource]:
    """Where models come from that are named by a reference (`NAME:REFERENCE`). Called once, when one is looked up."""
    raise NotImplementedError


@hookspec
def tunemark_datasets() -> Sequence[Dataset]:
    """The datasets of this plugin, as facts.

    Called when a dataset is first looked up. `loader` is imported when the dataset is prepared, before any device is
    touched."""
    raise NotImplementedError


@hookspec
def tunemark_strategies() -> Sequence[Strategy]:
    """The strategies of this plugin, as facts and as answers to a plan's questions.

    Called when a strategy is first looked up. `runtime` is imported in the worker alone."""
    raise NotImplementedError


@hookspec
def tunemark_launchers() -> Sequence[Launcher]:
    """The launchers of this plugin, which start jobs here or elsewhere.

    Called when a launcher is first looked up. `loader` is called once in a sweep."""
    raise NotImplementedError


@hookspec
def tunemark_formats() -> Sequence[Format]:
    """The report formats of this plugin.

    Called when a report is written. `render` is given the whole report and returns bytes; it writes nothing."""
    raise NotImplementedError


@hookspec
def tunemark_importers() -> Sequence[Importer]:
    """The readers of foreign results of this plugin.

    Called when `tunemark audit` or a report meets a file. A reader must not raise on a file that is not its own."""
    raise NotImplementedError


@hookspec
def tunemark_monitors() -> Sequence[Monitor]:
    """The libraries that tell of devices while jobs run on them.

    Called when a device names one of them by `monitored`. `loader` is called once for each attempt; what the reader
    raises is kept with the samples and never touches the job."""
    raise NotImplementedError


@hookspec
def tunemark_record(plan: Plan, record: Mapping[str, Any]) -> None:
    """Observe one record of a running attempt, as soon as the parent has read it.

    Called for each record of each rank, between two reads, so it must be quick. What it raises is printed once as a
    warning and does not touch the run."""


@hookspec
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    """Findings to add to a result. Called once per result, after the estimates; `plan` is None for an imported row.
    What it raises becomes a finding that names the plugin and makes the verdict unknown."""
    raise NotImplementedError
