"""The hooks, prefix `tunemark_`. A hook answers "who is there?"; every one returns, none is first-result.

A plugin is a module (or object) named in the entry-point group `tunemark`; it marks its functions with `hookimpl`.
All are called in the parent process. A hook that raises is reported with its plugin's name; the other plugins go on.
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
    """The devices that this plugin can measure, present or not. Called once, when a device is first looked up."""
    raise NotImplementedError


@hookspec
def tunemark_models() -> Sequence[Model]:
    """The models of this plugin. Called once, when a model is first looked up."""
    raise NotImplementedError


@hookspec
def tunemark_model_sources() -> Sequence[ModelSource]:
    """Where models come from that are named by a reference (`NAME:REFERENCE`). Called once, when one is looked up."""
    raise NotImplementedError


@hookspec
def tunemark_datasets() -> Sequence[Dataset]:
    """The datasets of this plugin. Called once, when a dataset is first looked up."""
    raise NotImplementedError


@hookspec
def tunemark_strategies() -> Sequence[Strategy]:
    """The strategies of this plugin. Called once, when a strategy is first looked up."""
    raise NotImplementedError


@hookspec
def tunemark_launchers() -> Sequence[Launcher]:
    """The launchers of this plugin. Called once, when a launcher is first looked up."""
    raise NotImplementedError


@hookspec
def tunemark_formats() -> Sequence[Format]:
    """The report formats of this plugin. Called once, when a report is written."""
    raise NotImplementedError


@hookspec
def tunemark_importers() -> Sequence[Importer]:
    """The readers of foreign results of this plugin. Called once, when one is looked up."""
    raise NotImplementedError


@hookspec
def tunemark_monitors() -> Sequence[Monitor]:
    """The libraries that tell of devices while jobs run on them. Called once, when a device names one of them."""
    raise NotImplementedError


@hookspec
def tunemark_record(plan: Plan, record: Mapping[str, Any]) -> None:
    """Observe one record of a running attempt, as soon as the parent has read it. What it raises is printed
    once as a warning and does not touch the run."""


@hookspec
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    """Findings to add to a result. Called once per result, after the estimates; `plan` is None for an imported row.
    What it raises becomes a finding that names the plugin and makes the verdict unknown."""
    raise NotImplementedError
