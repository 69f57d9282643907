"""Queue much work on a device and look whether `synchronize` waits for it: for the test kit, not for measurements.

A small training step may leave nothing to wait for: a fast device, or one whose driver starts only one step at a time,
has finished before it is asked. A chain of matrix products that depend on each other fills any queue.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, Callable, Dict, Tuple

import torch

from tunemark_worker.capabilities import DeviceRuntime, EndsSteps, WaitsByReading

# Seconds of work that are queued, and how often.
PROBE_S = 0.3
REPEATS = 3
# How often a chain is timed to see whether it is queued.
TIMINGS = 7
# Shortest product that a chain is made of, so that starting one costs less than computing it; and the limits of that.
PRODUCT_S, LARGEST_SIZE, MOST_PRODUCTS = 5e-4, 4096, 400


class ProductChain:
    """Products of a square matrix whose rows sum to 1, one after another.

    is_queued: whether the device computes them after they were queued, not before the call returns."""

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        size, computed_s = 128, 0.0
        while computed_s < PRODUCT_S and size < LARGEST_SIZE:
            size *= 2
            # Made on the host, so that no compiler knows that they are constant.
            self._factor = torch.full((size, size), 1.0 / size).to(device)
            self._start = torch.ones(size, size).to(device)
            for _ in range(2):  # the first may compile
                computed_s = sum(self._time(4))
        # Several times: on a busy machine another process may run in the middle of one.
        timed = [self._time(4) for _ in range(TIMINGS)]
        self._product_s = min(queued_s + left_s for queued_s, left_s in timed)
        self.is_queued = sum(left_s > queued_s for queued_s, left_s in timed) >= TIMINGS - 1

    def queue(self, seconds: float) -> torch.Tensor:
        """A matrix of ones, behind so many seconds of work."""
        return self._multiply(min(math.ceil(seconds / self._product_s), MOST_PRODUCTS))

    def _multiply(self, products: int) -> torch.Tensor:
        with torch.no_grad():
            found = self._start
            for _ in range(products):
                found = found @ self._factor
            return found

    def _time(self, products: int) -> Tuple[float, float]:
        """Seconds of a product until it is queued, and from then until it is computed, without what reading costs."""
        began_s = self._clock()
        found = self._multiply(products)
        queued_s = self._clock()
        _read_element(found)
        read_s = self._clock()
        _read_element(self._start)
        left_s = max(0.0, (read_s - queued_s) - (self._clock() - read_s))
        return (queued_s - began_s) / products, left_s / products


def probe_queue(
    device: DeviceRuntime, place_device: str, clock: Callable[[], float] = time.perf_counter
) -> Dict[str, Any]:
    """Fields of the `probe` record, of the repeat in which least was left. is_queued: False if the device computes
    before a call returns, so that there is nothing to wait for. work_s: until the work's result had been read; late_s:
    the part of that after `synchronize` had returned, without what reading costs."""
    chain = ProductChain(place_device, clock)
    at_rest = torch.zeros(2).to(place_device)
    _read_element(at_rest)
    found = []
    for _ in range(REPEATS if chain.is_queued else 0):
        began_s = clock()
        result = chain.queue(PROBE_S)
        if isinstance(device, WaitsByReading):
            device.use_reader(functools.partial(_read_element, result))
        if isinstance(device, EndsSteps):
            device.end_step()
        device.synchronize()
        waited_s = clock()
        _read_element(result)
        read_s = clock()
        _read_element(at_rest)
        late_s = max(0.0, (read_s - waited_s) - (clock() - read_s))
        found.append((late_s / (read_s - began_s), late_s, read_s - began_s))
    _, late_s, work_s = min(found, default=(0.0, 0.0, 0.0))
    return {"is_queued": chain.is_queued, "work_s": work_s, "late_s": late_s}


def _read_element(tensor: torch.Tensor) -> None:
    tensor.flatten()[0].item()
