"""Measure exposed communication: how long a rank's computation waits for other ranks, if parts of a step are timed.

It times the places at which torch waits: `Work.wait`, a functional collective's `wait_tensor`, and collectives that run
on the compute stream itself. On the host the clock is read around them. On an accelerator events are recorded around
them on the compute stream, so that measuring adds no synchronization. Torch is patched for that, only in this process
and only for a breakdown, from which no rate is reported.

A late rank makes the others wait, so the times include load imbalance and pipeline bubbles.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, List, Tuple

import torch
import torch.distributed as dist

# Name of this part of a step in the records.
COMMUNICATION = "communication"
# Methods of a process group that start a collective. On an accelerator, those that are not asynchronous run on the
# compute stream (torch 2.8 and newer).
COLLECTIVE_METHODS = (
    "allreduce", "allreduce_coalesced", "allgather", "_allgather_base", "all_gather_single",
    "allgather_into_tensor_coalesced", "reduce_scatter", "_reduce_scatter_base", "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced", "alltoall", "alltoall_base", "all_to_all_single", "broadcast", "reduce",
    "gather", "scatter", "send", "recv", "recv_anysource", "barrier", "_end_coalescing",
)  # fmt: skip


class WaitMeter:
    """Measures the waits of this rank while it is entered. Nested waits count once.

    clock: seconds. events: the accelerator's module, such as torch.cuda; None on the host.
    """

    def __init__(self, clock: Callable[[], float], events: Any = None) -> None:
        self._meter: Any = _HostMeter(clock) if events is None else _StreamMeter(events)
        self._depth = 0
        self._hidden_wait: Any = None
        self._patched: List[Tuple[Any, str, Any]] = []

    def __enter__(self) -> WaitMeter:
        if dist.is_available():
            # Torch 2.1 has it under another name.
            self._patch(getattr(dist, "Work", None) or vars(dist)["_Work"], "wait")
            for name in COLLECTIVE_METHODS:
                self._patch(dist.ProcessGroup, name)
            functional = sys.modules.get("torch.distributed._functional_collectives")
            if functional is not None:
                self._patch(functional, "wait_tensor")
            self._meter.patch(self._patch)
        return self

    def __exit__(self, *error: Any) -> None:
        while self._patched:
            owner, name, original = self._patched.pop()
            setattr(owner, name, original)

    def take_seconds(self) -> float:
        """Seconds of waiting since the last call. The caller must have synchronized with an accelerator."""
        if self._hidden_wait is not None:
            self._leave(self._hidden_wait)
            self._hidden_wait = None
        seconds: float = self._meter.take_seconds()
        return seconds

    def start_waiting(self) -> None:
        """Count all time until the next `take_seconds` as waiting: for a wait inside torch that cannot be patched."""
        if self._hidden_wait is None:
            self._hidden_wait = self._enter()

    def _patch(self, owner: Any, name: str) -> None:
        original = vars(owner).get(name)
        if original is None:
            return

        @functools.wraps(getattr(owner, name))
        def timed(*args: Any, **kwargs: Any) -> Any:
            token = self._enter()
            try:
                return original(*args, **kwargs)
            finally:
                self._leave(token)

        self._patched.append((owner, name, original))
        setattr(owner, name, timed)

    def _enter(self) -> Any:
        self._depth += 1
        # False marks a nested wait; None would mean that no wait is open.
        return self._meter.begin() if self._depth == 1 else False

    def _leave(self, token: Any) -> None:
        self._depth -= 1
        if token is not False:
            self._meter.end(token)


def make_wait_meter(device: str, clock: Callable[[], float]) -> WaitMeter:
    """The waits of a rank on `device`, such as "cpu" or "cuda:0"."""
    return WaitMeter(clock, torch.cuda if device.partition(":")[0] == "cuda" else None)


class _HostMeter:
    """Times waits of the host thread, which also computes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._seconds = clock, 0.0

    def patch(self, patch: Callable[[Any, str], None]) -> None:
        pass

    def begin(self) -> Any:
        return (self._clock(),)

    def end(self, token: Any) -> None:
        self._seconds += self._clock() - token[0]

    def take_seconds(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _StreamMeter:
    """Times waits of the compute stream by events. Waits of other streams do not count."""

    def __init__(self, events: Any) -> None:
        """events: torch.cuda, or another module with `current_stream`, `Event` and `Stream`."""
        self._events, self._compute_stream = events, events.current_stream()
        self._pairs: List[Tuple[Any, Any]] = []

    def patch(self, patch: Callable[[Any, str], None]) -> None:
        # FSDP2's compute stream waits for all-gathers and reductions by events.
        patch(self._events.Stream, "wait_event")

    def begin(self) -> Any:
        return (self._record_event(),)

    def end(self, token: Any) -> None:
        if token[0] is not None:
            self._pairs.append((token[0], self._record_event(always=True)))

    def take_seconds(self) -> float:
        # elapsed_time is in milliseconds. A wait for completed work shows only the events' resolution.
        seconds = sum(float(begin.elapsed_time(end)) for begin, end in self._pairs) / 1e3
        self._pairs = []
        return seconds

    def _record_event(self, always: bool = False) -> Any:
        if not always and self._events.current_stream() != self._compute_stream:
            return None
        event = self._events.Event(enable_timing=True)
        event.record(self._compute_stream)
        return event
