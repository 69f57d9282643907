"""What each precision of training means: the formats of the weights and of matrix multiplications.

Gradients and the optimizer's state have the weights' format.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ContextManager, Dict, NamedTuple

if TYPE_CHECKING:
    import torch

# Bytes of a value, and torch's name of the format.
FORMAT_BYTES = {"fp32": 4, "bf16": 2}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class TrainingPrecision(NamedTuple):
    """The formats of weights and of matrix multiplications. tolerance: the largest relative difference of a step's loss
    and gradient norm that rounding explains. fp32: 2^-24 for one addition, in sums of some millions of terms. bf16:
    2^-9 for one rounding. float8: torchao's recipe by which products within layers are in 8-bit floats instead, "" for
    none; e4m3 rounds by up to 2^-4."""

    weights: str
    products: str
    tolerance: float
    float8: str = ""


PRECISIONS: Dict[str, TrainingPrecision] = {
    "fp32": TrainingPrecision("fp32", "fp32", 1e-5),
    "bf16-autocast": TrainingPrecision("fp32", "bf16", 1e-2),
    "bf16": TrainingPrecision("bf16", "bf16", 2e-2),
    "fp8": TrainingPrecision("fp32", "bf16", 2**-4, float8="tensorwise"),
    "fp8-rowwise": TrainingPrecision("fp32", "bf16", 2**-4, float8="rowwise"),
    # Blocks of 32 with a common power of two: OCP Microscaling Formats Specification 1.0.
    "mxfp8": TrainingPrecision("fp32", "bf16", 2**-4, float8="mx"),
}


def parameter_dtype(precision: str) -> torch.dtype:
    """The dtype of the weights."""
    return _find_dtype(_find(precision).weights)


def compute_dtype(precision: str) -> torch.dtype:
    """The dtype of matrix multiplications."""
    return _find_dtype(_find(precision).products)


def autocast(precision: str, device: str) -> ContextManager[Any]:
    """The context for the forward pass."""
    found = _find(precision)
    if found.weights == found.products:
        return contextlib.nullcontext()
    import torch  # the parent reads the table above without it

    return torch.autocast(device.partition(":")[0], dtype=_find_dtype(found.products))


def _find(precision: str) -> TrainingPrecision:
    if precision not in PRECISIONS:
        raise ValueError("the precision is one of {}, not {!r}".format(", ".join(PRECISIONS), precision))
    return PRECISIONS[precision]


def _find_dtype(name: str) -> torch.dtype:
    import torch  # the parent reads the table above without it

    found: torch.dtype = getattr(torch, _DTYPES[name])
    return found
