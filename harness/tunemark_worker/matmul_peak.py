"""Measure the machine's peak: the best FLOP/s of a square matrix product over all code paths of torch.

A product of n x n matrices is 2 n^3 FLOPs. The best of all repeats counts: this is a bound, not an average.
Each product's result is read. A lazy device does not compute what nobody reads, and skipped products would be a peak
that no device has. What it takes to read a matrix that is at rest is subtracted.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch

SIZES = (1024, 2048, 4096)
REPEATS = 8
# Largest relative error that counts as fp32. Sums of 1024 products have about 1e-7; with tf32 3e-4, with bf16 3e-3.
FP32_ERROR = 1e-5

_PATHS: Dict[str, Callable[..., torch.Tensor]] = {"mm": torch.mm, "linear": torch.nn.functional.linear}


def measure_peak(
    precision: str,
    dtype: torch.dtype,
    device: str,
    synchronize: Callable[[], None],
    limit_s: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, Any]:
    """Fields of the `peak` record. tried: best FLOP/s of each path. Takes about `limit_s` on any machine."""
    # What a lazy or asynchronous device was told before is no part of any product.
    synchronize()
    end_s = clock() + limit_s
    combinations = _combinations(dtype, device)
    tried: Dict[str, float] = {}
    for size in SIZES:
        for path, library, accuracy in combinations:
            # Twice, because of a warm-up call. The smallest size is tried in any case.
            expected_s = 2 * 2.0 * size**3 / max(tried.values()) if tried else 0.0
            if size != SIZES[0] and clock() + expected_s > end_s:
                break
            with _use_library(library), _use_accuracy(accuracy):
                if accuracy == "highest" or _is_fp32(_PATHS[path], device):
                    name = "{}, {}, {} at {}".format(path, library, accuracy, size)
                    tried[name] = _best_flops(_PATHS[path], size, dtype, device, synchronize, end_s, clock)
        # Larger sizes are tried only on paths that are near the best.
        enough = 0.7 * max(tried.values())
        combinations = [c for c in combinations if tried.get("{}, {}, {} at {}".format(*c, size), 0.0) > enough]
    best = max(tried, key=tried.__getitem__)
    return {"precision": precision, "flops": tried[best], "path": best, "tried": tried}


def _combinations(dtype: torch.dtype, device: str) -> List[Tuple[str, str, str]]:
    """(path, library, accuracy), the likely best first."""
    # Without oneDNN, torch multiplies bfloat16 on CPU in a plain loop, a thousand times slower.
    libraries = ("default",) if device != "cpu" else ("mkldnn", "native") if dtype == torch.float32 else ("mkldnn",)
    accuracies = ("highest", "medium") if dtype == torch.float32 else ("highest",)
    return list(itertools.product(_PATHS, libraries, accuracies))


def _best_flops(
    multiply: Callable[..., torch.Tensor],
    size: int,
    dtype: torch.dtype,
    device: str,
    synchronize: Callable[[], None],
    end_s: float,
    clock: Callable[[], float],
) -> float:
    # Made on the host: a compiler must not know that they are constant.
    a = torch.full((size, size), 0.5, dtype=dtype).to(device)
    b = torch.full((size, size), 0.25, dtype=dtype).to(device)
    read = _find_reading(a)
    for warm in (b, multiply(a, b)):
        read(warm)
    product_s = reading_s = float("inf")
    for repeat in range(REPEATS):
        began_s = clock()
        if repeat and began_s >= end_s:
            break
        product = multiply(a, b)
        synchronize()
        read(product)
        multiplied_s = clock()
        read(a)
        product_s = min(product_s, multiplied_s - began_s)
        reading_s = min(reading_s, clock() - multiplied_s)
    # Without any difference, the clock is too coarse to tell both apart.
    return 2.0 * size**3 / max(product_s - reading_s if product_s > reading_s else product_s, 1e-9)


def _find_reading(matrix: torch.Tensor) -> Callable[[torch.Tensor], float]:
    """The reading that depends on most of a matrix, of those that the device has."""
    try:
        _read_all(matrix)
        return _read_all
    except RuntimeError:  # what torch raises if a backend lacks an operator
        return _read_element


def _read_all(matrix: torch.Tensor) -> float:
    """Copy to the host a number that depends on each element, in a way that no compiler can shorten."""
    return matrix.abs().max().item()


def _read_element(matrix: torch.Tensor) -> float:
    return matrix.flatten()[-1].item()


def _is_fp32(multiply: Callable[..., torch.Tensor], device: str) -> bool:
    """Whether this path has fp32 accuracy: "medium" allows the library to use tf32 or bf16 internally."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 1024, generator=generator)
    b = torch.randn(1024, 1024, generator=generator)
    # linear multiplies by the transpose.
    exact = a.double() @ (b.double().t() if multiply is torch.nn.functional.linear else b.double())
    error = multiply(a.to(device), b.to(device)).cpu().double() - exact
    return bool(error.norm() / exact.norm() < FP32_ERROR)


@contextlib.contextmanager
def _use_accuracy(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if name == before:
        yield
        return
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _use_library(name: str) -> Iterator[None]:
    if name == "default":
        yield
        return
    with warnings.catch_warnings():
        # torch 2.13 warns on any oneDNN flag that it was built without Intel GPUs.
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=name == "mkldnn"):
            yield
