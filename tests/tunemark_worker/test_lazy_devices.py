"""Devices that compute later than they are told to, on a clock of their own: nothing here takes the time it speaks of.

An operation of `Queue` takes no time when it is called. Its work is done when a value is read that needs it, or when
the driver waits for it.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunemark_worker import matmul_peak
from tunemark_worker.batches import Batch
from tunemark_worker.contract import MAX_LATE, Place
from tunemark_worker.no_strategy import NoStrategy
from tunemark_worker.queue_probe import probe_queue
from tunemark_worker.training_loop import TrainingJob, train

_ATEN = torch.ops.aten
# Seconds of a matrix product or an embedding, and of a copy of one value to the host.
WORK_S, COPY_S = 1.0, 0.3


class Queue(TorchDispatchMode):
    """now_s: the clock. is_lazy: what is read is computed and not kept, so that it is computed again the next time, and
    a value that needs no work is read at once; else the queue is worked off in order, whatever is read."""

    def __init__(self, *, is_lazy: bool) -> None:
        super().__init__()
        self.now_s, self.pending_s = 0.0, 0.0
        self._is_lazy = is_lazy
        # By address: results of work, kept so that no address is used twice.
        self._results: dict[int, torch.Tensor] = {}

    def clock(self) -> float:
        return self.now_s

    def wait(self) -> None:
        self.now_s += self.pending_s
        self.pending_s = 0.0

    def add_result(self, tensor: torch.Tensor) -> None:
        self._results[tensor.untyped_storage().data_ptr()] = tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is _ATEN._local_scalar_dense.default:
            self._read(args[0])
            return func(*args)
        is_work = func in (_ATEN.mm.default, _ATEN.embedding.default)
        self.pending_s += WORK_S if is_work else 0.0
        # What is asked here is when, not what: products of ones by averages are ones.
        result = args[0].clone() if func is _ATEN.mm.default else func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and (is_work or any(map(self._is_result, args))):
            self.add_result(result)
        return result

    def _is_result(self, value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in self._results

    def _read(self, tensor: torch.Tensor) -> None:
        if not tensor.is_floating_point():  # counts of tokens, on the host
            return
        if not self._is_lazy:
            self.wait()
        elif self._is_result(tensor):
            self.now_s += self.pending_s
        self.now_s += COPY_S


class Waits:
    """A driver that waits."""

    is_synchronous = False

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.ends: list[float] = []

    def end_step(self) -> None:
        self.ends.append(self._queue.pending_s)

    def synchronize(self) -> None:
        self._queue.wait()


class DoesNotWait(Waits):
    """A driver that says it has finished whatever is left."""

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize("driver", [Waits, DoesNotWait])
def test_a_product_that_nobody_reads_is_no_peak(driver: type[Waits], is_lazy: bool) -> None:
    with Queue(is_lazy=is_lazy) as queue:
        device = driver(queue)
        size = 64
        found = matmul_peak._best_flops(torch.mm, size, torch.float32, "cpu", device.synchronize, 1e9, queue.clock)
    # 2 n^3 in the second of a product, without the copy of its result; a lazy device that never starts anything does
    # all the products so far again.
    assert found == pytest.approx(2 * size**3 / WORK_S) or (driver is DoesNotWait and is_lazy)
    assert found <= 2 * size**3 / WORK_S * 1.001


def test_a_device_without_the_operators_of_a_thorough_reading_has_a_peak_too() -> None:
    class Minimal(Queue):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is _ATEN.abs.default:
                raise NotImplementedError("no kernel for abs")
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Minimal(is_lazy=True) as queue:
        wait = Waits(queue).synchronize
        assert matmul_peak._best_flops(torch.mm, 64, torch.float32, "cpu", wait, 1e9, queue.clock) == 2 * 64**3 / WORK_S


class Records(list):
    def write(self, kind: str, **fields) -> None:
        self.append({"kind": kind, **fields})

    def of(self, kind: str) -> list:
        return [record for record in self if record["kind"] == kind]


def _train(queue: Queue, device: Waits) -> Records:
    """Two windows of a warm-up step and of four timed ones, of a table of scores by token."""
    module = torch.nn.Embedding(8, 8)
    queue.add_result(module.weight)
    ids = torch.arange(8)[None]
    batch = Batch(ids, ids, torch.zeros_like(ids), ids, False)
    records = Records()
    job = TrainingJob(
        assignment=SimpleNamespace(
            breakdown=False, precision="fp32", learning_rate=0.1, clip_norm=0.0, steps=32, warmup=1, budget_s=None,
            target_interval=0.0, window_s=1e9, loss="plain", compile="off", batching="pad",
        ),
        place=Place("cpu", 0, 1, 0, 1),
        device=device,
        strategy=NoStrategy(None),
        model=SimpleNamespace(logits=lambda module, batch: module(batch.input_ids)),
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        factor=lambda number: 1.0,
        steps=iter([[batch]] * 33),
        recorder=records,
        clock=queue.clock,
        second=queue.clock,
        is_interrupted=lambda: False,
    )  # fmt: skip
    assert train(job) == "steps"
    return records


def _late(edge: dict) -> float:
    """As the parent reads it: the first reading, less the second."""
    return (edge["witness_s"] - edge["second_s"]) - (edge["reread_s"] - edge["witness_s"])


@pytest.mark.parametrize("is_lazy", [True, False])
def test_what_reading_costs_is_not_taken_for_work(is_lazy: bool) -> None:
    with Queue(is_lazy=is_lazy) as queue:
        edges = _train(queue, Waits(queue)).of("edge")
    assert [edge["steps"] for edge in edges] == [0, 1, 5, 9, 13, 17, 21, 25, 29, 33]
    assert all(edge["witness_s"] - edge["second_s"] == pytest.approx(COPY_S) for edge in edges)
    assert [_late(edge) for edge in edges] == pytest.approx([0.0] * len(edges))


@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_driver_that_does_not_wait_leaves_a_windows_work(is_lazy: bool) -> None:
    """Also on a lazy device, which would do the work a second time if the weight were read twice."""
    with Queue(is_lazy=is_lazy) as queue:
        late = [_late(edge) for edge in _train(queue, DoesNotWait(queue)).of("edge")]
    assert all(seconds >= 4 * WORK_S - 1e-9 for seconds in late[2:])


def test_each_step_ends_after_its_update() -> None:
    with Queue(is_lazy=True) as queue:
        device = DoesNotWait(queue)
        _train(queue, device)
    # One more embedding is pending at the end of each of 33 steps.
    assert device.ends == [WORK_S * (step + 1) for step in range(33)]


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize(("driver", "is_honest"), [(Waits, True), (DoesNotWait, False)])
def test_a_deep_queue_shows_who_waits(driver: type[Waits], is_lazy: bool, is_honest: bool) -> None:
    with Queue(is_lazy=is_lazy) as queue:
        found = probe_queue(driver(queue), "cpu", queue.clock)
    assert found["is_queued"]
    assert (found["late_s"] <= MAX_LATE * found["work_s"]) is is_honest


def test_a_device_that_computes_before_it_returns_has_nothing_to_wait_for() -> None:
    ticks = iter(range(10_000))
    assert probe_queue(DoesNotWait(Queue(is_lazy=False)), "cpu", lambda: float(next(ticks))) == {
        "is_queued": False, "work_s": 0.0, "late_s": 0.0,
    }  # fmt: skip
