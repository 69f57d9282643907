"""Optimizers, learning-rate schedules, and what each precision means.

fp32: all in float32. bf16-autocast: float32 weights, matrix multiplications in bfloat16. bf16: weights, gradients and
the optimizer's state in bfloat16.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, Callable, ContextManager, Iterable, Optional

import torch

OPTIMIZERS = ("adamw", "sgd", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16-autocast", "bf16")


def make_optimizer(name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer by name, torch's own with its defaults (AdamW: betas 0.9 and 0.999, weight decay 0.01; SGD: no
    momentum; Adafactor: no first moment, learning rate relative to a tensor's root mean square)."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate)
    if name == "adafactor":
        if not hasattr(torch.optim, "Adafactor"):
            raise ValueError("adafactor needs torch 2.5 or newer, this is {}".format(torch.__version__))
        return torch.optim.Adafactor(parameters, lr=learning_rate)
    raise ValueError("the optimizer is one of {}, not {!r}".format(", ".join(OPTIMIZERS), name))


def make_schedule(name: str, horizon: Optional[int]) -> Callable[[int], float]:
    """step -> learning-rate factor, which decays over `horizon` steps but is never 0, so that every step learns."""
    if name == "constant":
        return lambda step: 1.0
    if name not in SCHEDULES:
        raise ValueError("the schedule is one of {}, not {!r}".format(", ".join(SCHEDULES), name))
    if horizon is None:
        raise ValueError("a {} schedule needs the number of steps or epochs".format(name))
    last = max(horizon - 1, 0)

    def factor(step: int) -> float:
        done = min(step, last) / float(last + 1)
        return 1.0 - done if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def parameter_dtype(precision: str) -> torch.dtype:
    """The dtype of the weights."""
    _check(precision)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def compute_dtype(precision: str) -> torch.dtype:
    """The dtype of matrix multiplications."""
    _check(precision)
    return torch.float32 if precision == "fp32" else torch.bfloat16


def autocast(precision: str, device: str) -> ContextManager[Any]:
    """The context for the forward pass."""
    _check(precision)
    if precision != "bf16-autocast":
        return contextlib.nullcontext()
    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)


def _check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError("the precision is one of {}, not {!r}".format(", ".join(PRECISIONS), precision))
