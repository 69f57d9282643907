"""The device `moai` and its strategies, in the parent process. A size is the name of a flavor."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import Accelerator, LaunchConfig, Strategy, StrategyLayout, ToolStatus
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device
from tunemark_moai.simulator import SIMULATOR_VARIABLE

if TYPE_CHECKING:
    from tunemark_moai.flavor_control import ToolFlavorControl, VariableFlavorControl
    from tunemark_moai.job_monitor import MoaiJobMonitor

# Seconds between two calls of the status tool while a job runs. The cost of a call is not documented.
SAMPLE_INTERVAL_S = 10.0
SAMPLE_INTERVAL_VARIABLE = "TUNEMARK_MOAI_SAMPLE_S"
_ENABLE_VARIABLE = "MOREH_ENABLE_ADVANCED_PARALLELIZATION"

_ARGUMENTS = {
    "pipeline_parallel": "true or false",
    "num_stages": "stages of the pipeline, or auto",
    "num_micro_batches": "micro-batches of the pipeline, or auto",
    "activation_recomputation": "true, false, or auto",
    "distribute_parameter": "true, false, or auto",
    "mixed_precision": "true or false; the platform's default is true",
}
_NUMBERS = ("num_stages", "num_micro_batches")
_WITHOUT_AUTO = ("pipeline_parallel", "mixed_precision")
# `manual` needs a value for each of these; the other two arguments have none that leaves the choice to the platform.
_PINNED_BY_MANUAL = ("num_stages", "num_micro_batches", "activation_recomputation", "distribute_parameter")


class MoaiDevice:
    """The accelerator that Moreh's MoAI platform offers to this machine."""

    name = "moai"
    runtime = "tunemark_moai.runtime:MoaiRuntime"

    def __init__(self, path: str | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """path: where to look for the tools; None is PATH."""
        self._path, self._environment = path, environment

    def accelerators(self) -> Sequence[Accelerator]:
        """The flavors of the menu, or the documented ones where no tool lists them; empty without a tool."""
        from tunemark_moai.flavors import memory_sort_key

        if self._control is None:
            return []
        return [self._accelerator(name) for name in sorted(self._control.sizes(), key=memory_sort_key)]

    def accelerator(self, size: str) -> Accelerator | None:
        if self._control is None:
            return next((each for each in self.documented_sizes() if each.name.casefold() == size.casefold()), None)
        from tunemark_moai.flavor_control import VariableFlavorControl

        # No tool lists the valid values of the variable, so any name that the user gives is accepted.
        if isinstance(self._control, VariableFlavorControl):
            return self._accelerator(size)
        found = next((name for name in self._control.sizes() if name.casefold() == size.casefold()), None)
        return self._accelerator(found) if found else None

    def documented_sizes(self) -> Sequence[Accelerator]:
        from tunemark_moai.flavors import DOCUMENTED_FLAVORS, make_accelerator

        known = [make_accelerator(name, is_present=False) for name in DOCUMENTED_FLAVORS]
        return sorted(
            (each for each in known if each.memory_bytes is not None), key=lambda each: each.memory_bytes or 0
        )

    def default_size(self) -> str:
        assert self._control is not None, "called only where there is a size"
        return self._control.current()

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        if self._control is None:
            raise TunemarkError(
                what="this machine has no MoAI accelerator",
                why="neither moreh-smi nor ap-smi is on PATH",
                next="run it in the MoAI environment",
            )
        return self._control.hold(accelerator.name, store)

    def unrestored_state(self, store: Path) -> str | None:
        from tunemark_moai.restore_record import RECORD_NAME, read_restore_record

        former = read_restore_record(store)
        if former is None or former.is_held:
            return None
        return (
            f"moai: an interrupted run changed accelerator {former.device} at {former.since} and did not restore it; "
            f"before, it was {former.flavor}. This run restores it when it ends. To do it now: `{former.command}`, "
            f"then delete {store / RECORD_NAME}"
        )

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        """One process: it sees one device, and the platform distributes the work itself."""
        return LaunchConfig(
            processes=1, threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        )

    def refusal(self, accelerator: Accelerator, strategy: str, settings: Mapping[str, Any]) -> str | None:
        name, *options = strategy.split(":")
        if name not in ("none", "auto", "manual"):
            return (
                f"{name} is a strategy of torch, but the platform distributes by itself (its documents forbid DDP): "
                "--strategy none, auto or manual"
            )
        if settings.get("breakdown"):
            return "no way is documented to wait for one part of a step there: leave out --breakdown"
        if settings.get("batching") == "bucket":
            return (
                "the platform compiles a graph and searches a configuration for each shape, and its documents pad all "
                "rows to one length: --batching pad, or pack"
            )
        if name == "none":
            if self._environment.get(_ENABLE_VARIABLE, "0") not in ("", "0"):
                return f"{_ENABLE_VARIABLE} is set, so `none` would be parallelized too: unset it"
            return None
        given = dict(option.partition("=")[::2] for option in options)
        for key, value in given.items():
            if not _is_value(key, value):
                return f"{key}={value}: {key} is {_ARGUMENTS[key]}"
        missing = [key for key in _PINNED_BY_MANUAL if given.get(key, "auto") == "auto"]
        if name == "manual" and missing:
            return f"manual leaves no choice to the platform, so pin {', '.join(missing)} too; auto accepts a subset"
        return None

    def watch(self, accelerator: Accelerator, attempt: Path, say: Callable[[str], None]) -> MoaiJobMonitor:
        from tunemark_moai.job_monitor import MoaiJobMonitor
        from tunemark_moai.tools import MoaiTools

        given = self._environment.get(SAMPLE_INTERVAL_VARIABLE)
        return MoaiJobMonitor(
            MoaiTools.of_environment(), attempt, say, SAMPLE_INTERVAL_S if given is None else float(given)
        )

    def read_output(self, text: str) -> ToolStatus:
        """Any table of `moreh-smi` or `ap-smi`."""
        # Compiling the parsers' patterns takes 80 ms; importing them here spares every other command the wait.
        from tunemark_moai.device_status import read_devices

        return read_devices(text)

    @functools.cached_property
    def _control(self) -> VariableFlavorControl | ToolFlavorControl | None:
        from tunemark_moai.tools import MoaiTools

        tools = MoaiTools(path=self._path) if self._path else MoaiTools.of_environment()
        if not (tools.find("ap-smi") or tools.find("moreh-smi")):
            return None
        from tunemark_moai.flavor_control import find_flavor_control

        return find_flavor_control(tools, self._environment)

    def _accelerator(self, name: str) -> Accelerator:
        from tunemark_moai.flavors import make_accelerator

        return make_accelerator(name, is_present=True, is_simulated=SIMULATOR_VARIABLE in self._environment)


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [MoaiDevice()]


@hookimpl
def tunemark_strategies() -> Sequence[Strategy]:
    return [
        Strategy(
            name="none",
            runtime="tunemark_moai.runtime:NoParallelization",
            description="the platform parallelizes nothing: one device of 64 GB",
            devices=("moai",),
            distributed=False,
            layout=StrategyLayout(degree="single"),
        ),
        *(
            Strategy(
                name=name,
                runtime="tunemark_moai.runtime:AdvancedParallelization",
                description=description,
                options=_ARGUMENTS,
                devices=("moai",),
                distributed=False,
            )
            for name, description in (
                ("auto", "the platform's advanced parallelization; it chooses what is not pinned"),
                ("manual", "the same with every argument pinned"),
            )
        ),
    ]


def _is_value(key: str, value: str) -> bool:
    if key in _NUMBERS:
        return value == "auto" or (value.isdecimal() and int(value) > 0)
    return value in ("true", "false") or (value == "auto" and key not in _WITHOUT_AUTO)
