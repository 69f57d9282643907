"""What counts as waiting for other ranks: gloo between two threads, and a device whose streams are moved by hand."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

from tunemark_worker.exposed_communication import WaitMeter

# Seconds by which the other rank is late.
LATE_S = 0.04


@pytest.fixture
def pair() -> list[Any]:
    """The two ends of a group of gloo, both in this process."""
    store, found = dist.HashStore(), [None, None]  # type: ignore[attr-defined]

    def join(rank: int) -> None:
        found[rank] = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))  # type: ignore[attr-defined]

    other = threading.Thread(target=join, args=(1,))
    other.start()
    join(0)
    other.join()
    return list(found)


def _late(group: Any) -> threading.Thread:
    def take_part() -> None:
        time.sleep(LATE_S)
        group.allreduce([torch.ones(4)])

    thread = threading.Thread(target=take_part)
    thread.start()
    return thread


def test_a_late_rank_is_waited_for_and_what_is_hidden_is_not(pair: list[Any]) -> None:
    with WaitMeter(time.monotonic) as waits:
        other = _late(pair[1])
        work = pair[0].allreduce([torch.ones(4)])
        work.wait()
        assert LATE_S * 0.5 < waits.take_seconds() < 1
        # It is told once.
        assert waits.take_seconds() == 0
        other.join()

        other = _late(pair[1])
        work = pair[0].allreduce([torch.ones(4)])
        other.join()
        while not work.is_completed():  # what computing would have taken at least
            pass
        work.wait()
        assert waits.take_seconds() < LATE_S / 2


def test_a_wait_inside_a_wait_counts_once() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    with WaitMeter(clock) as waits:
        # From here on nothing is computed: what is waited for meanwhile is part of it.
        waits.start_waiting()
        functional.wait_tensor(torch.ones(1))
        assert waits.take_seconds() == 1.0
        functional.wait_tensor(torch.ones(1))
        functional.wait_tensor(torch.ones(1))
        assert waits.take_seconds() == 2.0


def test_torch_is_as_before_afterwards() -> None:
    before = (dist.Work.wait, dist.ProcessGroup.allreduce, functional.wait_tensor)
    with WaitMeter(time.monotonic):
        assert functional.wait_tensor is not before[2]
    assert (dist.Work.wait, dist.ProcessGroup.allreduce, functional.wait_tensor) == before


class _Device:
    """A device whose streams do one thing at a time: `at_ms` is when the computing one has done what it was given."""

    def __init__(self) -> None:
        device = self
        self.at_ms = 0.0

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                self.ms = 0.0

            def record(self, stream: Any) -> None:
                self.ms = device.at_ms

            def elapsed_time(self, end: Any) -> float:
                return float(end.ms - self.ms)

        class Stream:
            def wait_event(self, event: Any) -> None:
                if self is device.computing:
                    device.at_ms = max(device.at_ms, event.ms)

        self.Event, self.Stream = Event, Stream
        self.computing, self.other = Stream(), Stream()
        self.current = self.computing

    def current_stream(self) -> Any:
        return self.current


def test_on_a_device_what_counts_is_how_long_its_computing_stream_stood() -> None:
    device = _Device()
    with WaitMeter(time.monotonic, device) as waits:
        gathered = device.Event()
        gathered.ms = 30.0
        device.at_ms = 10.0
        device.computing.wait_event(gathered)
        device.at_ms += 5.0
        # It is there already, so that nothing is waited for.
        device.computing.wait_event(gathered)
        # Another stream waits: nothing that computes does.
        device.current = device.other
        device.other.wait_event(gathered)
        assert waits.take_seconds() == pytest.approx(0.020)
        assert waits.take_seconds() == 0
