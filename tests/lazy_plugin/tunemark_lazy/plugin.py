"""The devices by name: XLA's CPU device, through torch_xla in the interpreter that trains, with a lying driver."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunemark.plugin import Accelerator, Device, LaunchConfig, Strategy, hookimpl

_RUNTIMES = {
    "lazy-xla-only-starts": "XlaOnlyStarts",
    "lazy-xla-does-nothing": "XlaDoesNothing",
}


class LazyDevice:
    """A device with the single size "1"."""

    def __init__(self, name: str, runtime: str) -> None:
        self.name, self.runtime = name, f"tunemark_lazy.runtime:{runtime}"

    def accelerators(self) -> Sequence[Accelerator]:
        return [Accelerator(name="1", chip="CPU", chips=1, memory_bytes=None)]

    def accelerator(self, size: str) -> Accelerator | None:
        return self.accelerators()[0] if size == "1" else None

    def default_size(self) -> str:
        return "1"

    def occupy(self, accelerator: Accelerator, store: Path) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> LaunchConfig:
        own = {"OMP_NUM_THREADS": "1", "PJRT_DEVICE": "CPU"}
        return LaunchConfig(processes=1, threads=1, environment=own)


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [LazyDevice(name, runtime) for name, runtime in _RUNTIMES.items()]
