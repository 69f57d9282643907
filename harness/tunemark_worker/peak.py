"""The machine's peak, measured: the best FLOP/s of a square matrix multiplication over the paths the library offers.

A multiplication of n x n matrices is 2 n^3 FLOPs. The best of all repeats counts: this is a bound, not an average.
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
# fp32 sums of 1024 products are off by about 1e-7 of their size, tf32 and bf16 by 3e-4 and 3e-3.
FP32_ERROR = 1e-5

_PATHS: Dict[str, Callable[..., torch.Tensor]] = {"mm": torch.mm, "linear": torch.nn.functional.linear}


def measure(
    precision: str,
    dtype: torch.dtype,
    device: str,
    synchronize: Callable[[], None],
    limit_s: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, Any]:
    """Fields of the record `peak`. tried: best FLOP/s of each path. It takes about `limit_s`, whatever the machine."""
    end_s = clock() + limit_s
    combinations = _combinations(dtype, device)
    tried: Dict[str, float] = {}
    for size in SIZES:
        for path, library, accuracy in combinations:
            # Twice, because the first of two may be slow. What is smallest is tried in any case.
            expected_s = 2 * 2.0 * size**3 / max(tried.values()) if tried else 0.0
            if size != SIZES[0] and clock() + expected_s > end_s:
                break
            with _library(library), _accuracy(accuracy):
                if accuracy == "highest" or _is_fp32(_PATHS[path], device):
                    name = "{}, {}, {} at {}".format(path, library, accuracy, size)
                    tried[name] = _best(_PATHS[path], size, dtype, device, synchronize, end_s, clock)
        # A larger size is worth its time only on the paths that are near the best.
        enough = 0.7 * max(tried.values())
        combinations = [c for c in combinations if tried.get("{}, {}, {} at {}".format(*c, size), 0.0) > enough]
    best = max(tried, key=tried.__getitem__)
    return {"precision": precision, "flops": tried[best], "path": best, "tried": tried}


def _combinations(dtype: torch.dtype, device: str) -> List[Tuple[str, str, str]]:
    """Path, library and accuracy, the likely ones first."""
    # Without oneDNN, torch multiplies bfloat16 on CPU by a plain loop: a thousandth of the speed.
    libraries = ("default",) if device != "cpu" else ("mkldnn", "native") if dtype == torch.float32 else ("mkldnn",)
    accuracies = ("highest", "medium") if dtype == torch.float32 else ("highest",)
    return list(itertools.product(_PATHS, libraries, accuracies))


def _best(
    multiply: Callable[..., torch.Tensor],
    size: int,
    dtype: torch.dtype,
    device: str,
    synchronize: Callable[[], None],
    end_s: float,
    clock: Callable[[], float],
) -> float:
    a = torch.full((size, size), 0.5, dtype=dtype, device=device)
    b = torch.full((size, size), 0.25, dtype=dtype, device=device)
    multiply(a, b)
    synchronize()
    shortest_s = float("inf")
    for repeat in range(REPEATS):
        began_s = clock()
        if repeat and began_s >= end_s:
            break
        multiply(a, b)
        synchronize()
        shortest_s = min(shortest_s, max(clock() - began_s, 1e-9))
    return 2.0 * size**3 / shortest_s


def _is_fp32(multiply: Callable[..., torch.Tensor], device: str) -> bool:
    """True where this path keeps fp32's accuracy: "medium" lets the library use tf32 or bf16 inside."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 1024, generator=generator)
    b = torch.randn(1024, 1024, generator=generator)
    # linear multiplies by the transpose.
    exact = a.double() @ (b.double().t() if multiply is torch.nn.functional.linear else b.double())
    error = multiply(a.to(device), b.to(device)).cpu().double() - exact
    return bool(error.norm() / exact.norm() < FP32_ERROR)


@contextlib.contextmanager
def _accuracy(name: str) -> Iterator[None]:
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
def _library(name: str) -> Iterator[None]:
    if name == "default":
        yield
        return
    with warnings.catch_warnings():
        # torch 2.13 warns, whatever is asked of oneDNN, that it was built without Intel GPUs.
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=name == "mkldnn"):
            yield
