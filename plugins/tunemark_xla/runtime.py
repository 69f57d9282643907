"""A device of PJRT inside the worker, through torch_xla, which is imported only when the device is opened.

torch_xla is lazy: operations are collected into a graph until a step ends, then compiled if this graph is new, and run
while Python collects the next one.
"""

from __future__ import annotations

import functools
import os
import resource
from typing import Any, Mapping, Optional, Tuple

import torch

from tunemark_worker.contract import Assignment, Place
from tunemark_worker.linux_proc import cpu_affinity


class XlaRuntime:
    """One device of PJRT: XLA's CPU device, or a TPU. Not yet run on a TPU by its authors."""

    is_synchronous = False

    def __init__(self) -> None:
        self._xla: Any = None
        self._model: Any = None
        self._metrics: Any = None

    def open(self, assignment: Assignment) -> Place:
        cores = assignment.device_options.get("cores")
        if cores and hasattr(os, "sched_setaffinity"):
            # Before the client starts its threads, one for each core that it may use.
            os.sched_setaffinity(0, cores[0])
        torch.set_num_threads(assignment.threads)
        import torch_xla
        import torch_xla.backends
        import torch_xla.core.xla_model
        import torch_xla.debug.metrics

        self._xla, self._model, self._metrics = torch_xla, torch_xla.core.xla_model, torch_xla.debug.metrics
        if assignment.precision == "fp32" and not self._is_cpu():
            # By default a TPU multiplies fp32 in bf16.
            torch_xla.backends.set_mat_mul_precision("highest")
        if assignment.precision == "bf16-autocast":
            _autocast_attention()
        return Place(device=str(torch_xla.device()), rank=0, ranks=1, data_rank=0, data_ranks=1)

    def end_step(self) -> None:
        self._xla.sync()

    def synchronize(self) -> None:
        self._xla.sync()
        self._model.wait_device_ops()

    def compilations(self) -> Tuple[int, float]:
        found = self._metrics.metric_data("CompileTime")
        # None before the first; (number, sum in ns, samples) after it.
        return (0, 0.0) if found is None else (int(found[0]), found[1] / 1e9)

    def peak_memory_bytes(self) -> Optional[int]:
        """Peak bytes on the device by its own count; on the CPU, which does not count, of the process."""
        if self._is_cpu():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = self._model.get_memory_info(self._xla.device()).get("peak_bytes_used")
        return None if found is None else int(found)

    def facts(self) -> Mapping[str, Any]:
        return {
            "torch_xla": self._xla.__version__,
            "pjrt_device": os.environ.get("PJRT_DEVICE"),
            "hardware": self._model.xla_device_hw(self._xla.device()),
            "matmul_precision": self._xla.backends.get_mat_mul_precision(),
            "cores": len(cpu_affinity() or ()) or None,
        }

    def _is_cpu(self) -> bool:
        return bool(self._model.xla_device_hw(self._xla.device()) == "CPU")


def _autocast_attention() -> None:
    """Have fused attention cast its inputs under autocast, as it does on a CPU and on CUDA.

    torch_xla 2.9's autocast leaves it out. Rotary positions make queries and keys fp32 and leave values in bf16, which
    attention then refuses."""
    functional: Any = torch.nn.functional
    attend = functional.scaled_dot_product_attention

    @functools.wraps(attend)
    def cast_and_attend(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("xla"):
            dtype = torch.get_autocast_dtype("xla")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        return attend(query, key, value, *args, **kwargs)

    functional.scaled_dot_product_attention = cast_and_attend
