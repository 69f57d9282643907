"""The MoAI platform inside the worker. One process sees one accelerator; the platform distributes the work itself.

Written against documents, and not run on hardware. Nothing here touches the accelerator before the model is built:
the first access acquires it, and waits while it is in use.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Dict, Mapping, Optional

import torch

from tunemark_moai.simulator import SIMULATOR_VARIABLE
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.no_strategy import NoStrategy

# 1.13.1+cu116.moreh24.5.0, 2.1.0+moreh25.1.202
_BUILD_PATTERN = re.compile(r"^([0-9.]+)\+(?:cu[0-9]+\.)?moreh([0-9.]+)$")


class MoaiRuntime:
    """The one accelerator that the process sees, however many devices are behind it.

    Python and the accelerator run asynchronously, and the documented way to wait is to read a value (HAC guide,
    "performance optimization tips"): `use_reader` receives the function that reads one.
    """

    is_synchronous = False

    def __init__(self) -> None:
        self._read: Optional[Callable[[], None]] = None
        self._moreh: Any = None

    def open(self, assignment: Assignment) -> Place:
        self._moreh = load_platform()
        torch.set_num_threads(assignment.threads)
        # The simulator names the device of torch on which its accelerator computes.
        device = getattr(self._moreh, "simulated_device", "cuda")
        return Place(device=device, rank=0, ranks=1, data_rank=0, data_ranks=1)

    def use_reader(self, read: Callable[[], None]) -> None:
        self._read = read

    def synchronize(self) -> None:
        if self._read is not None:
            self._read()

    def peak_memory_bytes(self) -> Optional[int]:
        """Unknown here: torch's allocator sees one device, and the platform has others behind it."""
        return None

    def facts(self) -> Mapping[str, Any]:
        # `torch.cuda.get_device_name` and similar calls would acquire the accelerator.
        build = _BUILD_PATTERN.match(torch.__version__)
        return {
            "torch_build": torch.__version__,
            "moreh": build.group(2) if build else getattr(torch.version, "moreh", None),
            "simulated": bool(getattr(self._moreh, "simulated", False)),
        }


# The unchanged program, of which the platform parallelizes nothing.
NoParallelization = NoStrategy


class AdvancedParallelization(NoStrategy):
    """The platform's own parallelization, which chooses every argument that is not pinned.

    What it chose is in its log, which the parent reads. Here only the requested arguments are known.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._arguments = parse_arguments(assignment.strategy_options)

    def prepare(self) -> None:
        # The documents (ap_advanced_setting.md) require this call before the model is built.
        load_platform().option.enable_advanced_parallelization(**self._arguments)

    def selected(self) -> Optional[Mapping[str, Any]]:
        return None


def parse_arguments(options: Mapping[str, str]) -> Dict[str, Any]:
    """The arguments of the platform's call, from a strategy's options: `auto`, booleans and integers."""
    words = {"true": True, "false": False, "auto": "auto"}
    return {name: words[text] if text in words else int(text) for name, text in options.items()}


def load_platform() -> Any:
    """`torch.moreh`, or the simulator's replacement."""
    if SIMULATOR_VARIABLE in os.environ and not hasattr(torch, "moreh"):
        from tunemark_moai.simulator.torch_moreh import install

        install(torch)
    if not hasattr(torch, "moreh"):
        raise RuntimeError(
            "this torch ({}) is not the MoAI platform's: it has no torch.moreh. Pass the interpreter of the MoAI "
            "environment with --python".format(torch.__version__)
        )
    return torch.moreh
