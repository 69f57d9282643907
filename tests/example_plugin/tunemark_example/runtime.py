"""Runs in the worker: imports torch, but not `tunemark`, which may not be installed there; keeps to Python 3.8
syntax."""

from __future__ import annotations

import itertools
import time
from typing import Any, Mapping, Optional

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.precision import parameter_dtype
from tunemark_worker.trainer_session import TrainerSession


class Toy:
    """One CPU thread. Work is done when a call returns, so synchronizing is free."""

    is_synchronous = True

    def open(self, assignment: Assignment) -> Place:
        torch.set_num_threads(assignment.threads)
        return Place(device="cpu", rank=0, ranks=1, data_rank=0, data_ranks=1)

    def synchronize(self) -> None:
        pass

    def peak_memory_bytes(self) -> Optional[int]:
        """None means unknown; 0 would be a measurement."""
        return None

    def facts(self) -> Mapping[str, Any]:
        return {"torch_threads": torch.get_num_threads()}


class Queue(TorchDispatchMode):
    """An asynchronous queue: each embedding forward (one per micro-batch) occupies the device for cost_s, one after
    another. Reading a tensor element waits until all queued work is done."""

    def __init__(self, cost_s: float) -> None:
        super().__init__()
        self._cost_s, self.ready_s, self.done = cost_s, 0.0, 0

    def wait(self) -> None:
        # Sleep, then spin as drivers do: a process that wakes up late would leave the device idle.
        time.sleep(max(0.0, self.ready_s - time.monotonic() - 0.02))
        while time.monotonic() < self.ready_s:
            pass

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[Any] = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            self.ready_s = max(time.monotonic(), self.ready_s) + self._cost_s
            self.done += 1
        # Scalars of their own (AdamW's step count, token counts) live on the host: reading them is free.
        if func is torch.ops.aten._local_scalar_dense.default and _is_slice(args[0]):
            self.wait()
        return func(*args, **(kwargs or {}))


class ToyAsync(Toy):
    """A device that returns before the work is done, at a known speed: 1 / step_s micro-batches a second as long as the
    program keeps it busy. Each synchronize writes the micro-batches done and the time at which they were done."""

    is_synchronous = False

    def open(self, assignment: Assignment) -> Place:
        self._queue = Queue(assignment.device_options["step_s"])
        self._queue.__enter__()  # for the life of the process
        return super().open(assignment)

    def synchronize(self) -> None:
        self._queue.wait()
        with open("device.log", "a") as log:
            log.write("{} {!r}\n".format(self._queue.done, self._queue.ready_s))


class ToyAsyncLying(ToyAsync):
    """The same device with a driver that does not wait: whoever trusts it measures only how fast work is queued."""

    def synchronize(self) -> None:
        pass


class ToyLm:
    """Builds the model and computes its logits."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        a = assignment.architecture
        model = Bigrams(a["vocab_size"], a["hidden_size"])
        return model.to(place.device, parameter_dtype(assignment.precision))

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """`module` is the model as the strategy returned it. This model sees no other tokens, so packing needs no mask;
        a model with attention must keep it within `batch.document_ids`."""
        scores: torch.Tensor = module(batch.input_ids)
        return scores


class Bigrams(torch.nn.Module):
    """An embedding, a scale and a head."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, hidden)
        self.scale = torch.nn.Parameter(torch.ones(hidden))
        self.head = torch.nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.embedding(ids) * self.scale)
        return scores


class Wrapped(torch.nn.Module):
    """A wrapper around any model, called in the same way as the model."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Any, **named: Any) -> Any:
        return self.model(*values, **named)


class ToyWrap:
    """A minimal strategy: its three methods in the order of their calls."""

    def __init__(self, assignment: Assignment) -> None:
        self._is_applied = False

    def prepare(self) -> None:
        """Called before the model exists, for example to set a vendor's switch."""

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        """Called after the model is built, to shard, wrap or compile it."""
        self._is_applied = True
        return Wrapped(model)

    def selected(self) -> Optional[Mapping[str, Any]]:
        """What was actually used, which may differ from what was requested."""
        return {"strategy": "toy-wrap"} if self._is_applied else None


class ToyCopies(ToyWrap):
    """A copy of the model in each process; the gradients are averaged over the processes."""

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        self._is_applied = True
        return torch.nn.parallel.DistributedDataParallel(model)

    def selected(self) -> Optional[Mapping[str, Any]]:
        return {"strategy": "toy-copies"} if self._is_applied else None


def _is_slice(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().nbytes() > tensor.element_size()


class ToyLoop:
    """A training loop of its own, as a stranger's framework would have one. It takes the run's micro-batches, and says
    when a step has ended; the clocks and the count of tokens are tunemark's."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._slots, self._began_s, self._rate = 0, 0.0, 0.0

    def facts(self) -> Mapping[str, Any]:
        """`differs` would name each setting of which the loop does something else, and what."""
        return {"version": "1.0", "differs": {}}

    def train(self, session: TrainerSession) -> None:
        a, module = self._a, session.module
        session.watch(module)
        optimizer = torch.optim.AdamW(module.parameters(), lr=a.learning_rate)
        batches = session.micro_batches()
        self._began_s = time.monotonic()
        for step in itertools.count():
            taken = list(itertools.islice(batches, a.gradient_accumulation))
            if len(taken) < a.gradient_accumulation:
                return
            tokens = sum(int((batch.labels[:, 1:] != -100).sum()) for batch in taken)
            total = 0.0
            for batch in taken:
                scores = module(batch.input_ids)[:, :-1].flatten(0, 1)
                labels = batch.labels[:, 1:].flatten()
                loss = torch.nn.functional.cross_entropy(scores, labels, reduction="sum") / tokens
                loss.backward()
                total += loss.item()
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), a.clip_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            self._slots += a.global_batch * a.sequence
            self._rate = self._slots / (time.monotonic() - self._began_s)
            if not session.step_ended(total, norm, session.learning_rate(step)):
                return

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        """What the loop would print of itself: recorded beside tunemark's rate, and audited."""
        return {"tokens_per_s": self._rate, "printed": "{:.0f} tok/s".format(self._rate), "counts": "all slots"}
