"""How long a rank's computing stands still for other ranks: communication that nothing hides, where parts are timed.

Watched are the places at which torch waits: a work's `wait`, a functional collective's `wait_tensor`, and a collective
that is started on the computing stream itself. On the host the clock is read around them. On an accelerator events
around them on the computing stream tell how long it stood, so that nothing is waited for that was not waited for
before. Torch is altered for that, in this process and for a breakdown alone: no rate is of such a run.

A rank that is late makes the others wait, so that imbalance is in it, as is a pipeline's bubble.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, List, Tuple

import torch
import torch.distributed as dist

# What a part of a step is called that was spent so.
COMMUNICATION = "communication"
# Methods of a process group by which a collective is started. On an accelerator one that nobody waits for apart runs
# on the stream that computes (torch 2.8 and newer).
STARTS = (
    "allreduce",
    "allreduce_coalesced",
    "allgather",
    "_allgather_base",
    "all_gather_single",
    "allgather_into_tensor_coalesced",
    "reduce_scatter",
    "_reduce_scatter_base",
    "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced",
    "alltoall",
    "alltoall_base",
    "all_to_all_single",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "send",
    "recv",
    "recv_anysource",
    "barrier",
    "_end_coalescing",
)


class Waits:
    """The waits of this rank while it is entered. A wait inside another one counts once.

    clock: seconds. events: of the accelerator whose stream computes; None on the host.
    """

    def __init__(self, clock: Callable[[], float], events: Any = None) -> None:
        self._meter: Any = _HostMeter(clock) if events is None else _StreamMeter(events)
        self._depth = 0
        self._open: Any = None
        self._altered: List[Tuple[Any, str, Any]] = []

    def __enter__(self) -> Waits:
        if dist.is_available():
            # Torch 2.1 has it under another name.
            self._watch(getattr(dist, "Work", None) or vars(dist)["_Work"], "wait")
            for name in STARTS:
                self._watch(dist.ProcessGroup, name)
            functional = sys.modules.get("torch.distributed._functional_collectives")
            if functional is not None:
                self._watch(functional, "wait_tensor")
            self._meter.watch(self._watch)
        return self

    def __exit__(self, *error: Any) -> None:
        while self._altered:
            owner, name, former = self._altered.pop()
            setattr(owner, name, former)

    def taken(self) -> float:
        """Seconds of waiting since this was last asked. On an accelerator all its work must have ended."""
        if self._open is not None:
            self._leave(self._open)
            self._open = None
        seconds: float = self._meter.taken()
        return seconds

    def until_taken(self) -> None:
        """From now on there is nothing left to compute, until `taken` is asked: for a wait that torch hides."""
        if self._open is None:
            self._open = self._enter()

    def _watch(self, owner: Any, name: str) -> None:
        former = vars(owner).get(name)
        if former is None:
            return

        @functools.wraps(getattr(owner, name))
        def watched(*args: Any, **named: Any) -> Any:
            token = self._enter()
            try:
                return former(*args, **named)
            finally:
                self._leave(token)

        self._altered.append((owner, name, former))
        setattr(owner, name, watched)

    def _enter(self) -> Any:
        self._depth += 1
        # Distinct from None, which says that nothing is open.
        return self._meter.begin() if self._depth == 1 else False

    def _leave(self, token: Any) -> None:
        self._depth -= 1
        if token is not False:
            self._meter.end(token)


def waits_of(device: str, clock: Callable[[], float]) -> Waits:
    """The waits of a rank on a device, as torch calls it."""
    return Waits(clock, torch.cuda if device.partition(":")[0] == "cuda" else None)


class _HostMeter:
    """What computes is the thread that waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._seconds = clock, 0.0

    def watch(self, watch: Callable[[Any, str], None]) -> None:
        pass

    def begin(self) -> Any:
        return (self._clock(),)

    def end(self, token: Any) -> None:
        self._seconds += self._clock() - token[0]

    def taken(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _StreamMeter:
    """What computes is a stream, which the host fills ahead of time. Another stream's waits are none of its own."""

    def __init__(self, events: Any) -> None:
        """events: torch.cuda, or what has its `current_stream`, `Event` and `Stream`."""
        self._events, self._computing = events, events.current_stream()
        self._pairs: List[Tuple[Any, Any]] = []

    def watch(self, watch: Callable[[Any, str], None]) -> None:
        # FSDP2's computing stream waits for its gathers and reductions by events.
        watch(self._events.Stream, "wait_event")

    def begin(self) -> Any:
        return (self._marked(),)

    def end(self, token: Any) -> None:
        if token[0] is not None:
            self._pairs.append((token[0], self._marked(always=True)))

    def taken(self) -> float:
        # Milliseconds. Of a wait for what had ended already there is only the events' own resolution.
        seconds = sum(float(begin.elapsed_time(end)) for begin, end in self._pairs) / 1e3
        self._pairs = []
        return seconds

    def _marked(self, always: bool = False) -> Any:
        if not always and self._events.current_stream() != self._computing:
            return None
        event = self._events.Event(enable_timing=True)
        event.record(self._computing)
        return event
