"""The devices by name: one CPU core each, through torch_xla or torch_nntile, in the interpreter that trains."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tunemark.plugin import Accelerator, Device, LaunchConfig, Strategy, hookimpl

_RUNTIMES = {
    "lazy-xla-only-starts": "XlaOnlyStarts",
    "lazy-xla-does-nothing": "XlaDoesNothing",
    "lazy-nntile": "Nntile",
    "lazy-nntile-only-starts": "NntileOnlyStarts",
    "lazy-nntile-does-nothing": "NntileDoesNothing",
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
        own = {"OMP_NUM_THREADS": "1", "PJRT_DEVICE": "CPU", "STARPU_NCPU": "1", "STARPU_SILENT": "1"}
        return LaunchConfig(processes=1, threads=1, environment=own)


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [LazyDevice(name, runtime) for name, runtime in _RUNTIMES.items()]
