"""The timed training loop: optimizer steps in contiguous windows, synchronizing with the device only at window edges.

A step is one optimizer update over the global batch. Its loss is the sum of cross-entropies over all predicted tokens
of the global batch, divided by their number: the same however the batch is split into micro-batches and over ranks.
Counts in the records are of this rank; the job's counts are their sums over data ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.distributed as dist

from tunemark_worker import exposed_communication
from tunemark_worker import recorder as recording
from tunemark_worker.backward_update import BackwardUpdater
from tunemark_worker.batches import Batch, TokenCounts, count_tokens, hash_rows
from tunemark_worker.capabilities import (
    ClipsGradients,
    ComputesGradients,
    ComputesLoss,
    CountsCompilations,
    DeviceRuntime,
    EndsSteps,
    MarksWaits,
    ModelRuntime,
    StrategyRuntime,
    WaitsByReading,
)
from tunemark_worker.compilation import count_compilations
from tunemark_worker.contract import IGNORED_LABEL, Assignment, Place
from tunemark_worker.gradient_norm import clip_gradients
from tunemark_worker.optimizer import make_optimizer
from tunemark_worker.precision import autocast
from tunemark_worker.stop_condition import STOP_REASONS, WindowPlanner
from tunemark_worker.training_settings import IN_BACKWARD
from tunemark_worker.update_witness import UpdateWitness

# First steps for which every rank records hashes of its rows, so that the parent can see duplicate samples.
SAMPLED_STEPS = 2
# Seconds between two records of the machine's load.
LOAD_S = 1.0

PartEnd = Tuple[str, float]
Updater = Union[torch.optim.Optimizer, BackwardUpdater]


@dataclasses.dataclass
class TrainingJob:
    """Everything that the loop works on. steps: each item is one step's micro-batches on this rank. factor: of the
    learning rate, by step. clock, second: two clocks of the host. is_interrupted: whether the end was requested."""

    assignment: Assignment
    place: Place
    device: DeviceRuntime
    strategy: StrategyRuntime
    model: ModelRuntime
    module: torch.nn.Module
    optimizer: Updater
    factor: Callable[[int], float]
    steps: Iterator[List[Batch]]
    recorder: recording.Recorder
    clock: Callable[[], float]
    second: Callable[[], float]
    is_interrupted: Callable[[], bool]

    def __post_init__(self) -> None:
        """Look for capabilities once, because each step uses them."""
        strategy = self.strategy
        self.clip = strategy.clip if isinstance(strategy, ClipsGradients) else clip_gradients
        self.compute_gradients = strategy.compute_gradients if isinstance(strategy, ComputesGradients) else None
        model: Any = self.model
        has_own_loss = self.assignment.loss != "plain" and isinstance(model, ComputesLoss)
        self.loss_sum: Optional[Callable[..., torch.Tensor]] = model.loss_sum if has_own_loss else None
        self.end_step = self.device.end_step if isinstance(self.device, EndsSteps) else None
        self.compilations = self.device.compilations if isinstance(self.device, CountsCompilations) else None
        if self.assignment.compile != "off" and self.compilations is None:
            self.compilations = count_compilations


class WorkerStep(NamedTuple):
    """The result of one step. Tensors stay on the device until the window's edge. widths: of its micro-batches on this
    rank. samples: hashes of the step's rows on this rank, None after the first steps. gradient_norm, learning_rate:
    None if another program's loop does not say."""

    counts: TokenCounts
    samples: Optional[List[str]]
    loss_sum: torch.Tensor
    gradient_norm: Optional[torch.Tensor]
    learning_rate: Optional[float]
    marks: List[PartEnd]
    instant_s: float
    widths: List[int]


def make_updater(a: Assignment, parameters: Sequence[torch.nn.Parameter]) -> Updater:
    """What updates the parameters, after the backward pass or in it."""

    def make(some: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return make_optimizer(a.optimizer, some, a.learning_rate, a.optimizer_impl)

    return BackwardUpdater(make, parameters) if a.update == IN_BACKWARD else make(parameters)


def train(job: TrainingJob) -> str:
    """Train until there is a reason to stop, and return the reason."""
    if not job.assignment.breakdown or job.place.ranks == 1:
        return _train(job, None)
    with exposed_communication.make_wait_meter(job.place.device, job.clock) as waits:
        if isinstance(job.strategy, MarksWaits):
            job.strategy.mark_waits(waits)
        return _train(job, waits)


def _train(job: TrainingJob, waits: Optional[exposed_communication.WaitMeter]) -> str:
    witness = UpdateWitness(job.module)
    last: List[torch.Tensor] = []
    if isinstance(job.device, WaitsByReading):
        job.device.use_reader(lambda: _wait_by_reading(witness, last))
    timing = WindowPlanner(job.assignment, job.device.is_synchronous)
    edge_s = record_edge(job, witness, 0, 0)
    began_s = load_s = edge_s
    job.recorder.write("load", **recording.read_load())
    done = window = 0
    while True:
        reason, length = agree_on_next(job, timing, done, edge_s - began_s)
        if reason:
            return reason
        taken: List[WorkerStep] = []
        for batches in job.steps:
            taken.append(_count_and_step(job, waits, done + len(taken), batches))
            last[:] = [taken[-1].loss_sum]
            if len(taken) == length:
                break
        if not taken:
            return "epochs"
        next_s = record_edge(job, witness, window + 1, done + len(taken), taken)
        timing.add(len(taken), next_s - edge_s, *sum_tokens(taken))
        if next_s - load_s >= LOAD_S:
            job.recorder.write("load", **recording.read_load())
            load_s = next_s
        if window == 0:
            job.recorder.write("phase", name="first_step")
        edge_s, done, window = next_s, done + len(taken), window + 1


def sum_tokens(taken: List[WorkerStep]) -> Tuple[int, int]:
    """(content tokens, slots) of steps."""
    return sum(step.counts.content for step in taken), sum(step.counts.slots for step in taken)


def _wait_by_reading(witness: UpdateWitness, last: List[torch.Tensor]) -> None:
    """Wait for the last step by copying its loss, and an element of a weight that it updated, to the host."""
    for loss in last:
        loss.item()
    witness.read_update()


def _count_and_step(
    job: TrainingJob, waits: Optional[exposed_communication.WaitMeter], number: int, batches: List[Batch]
) -> WorkerStep:
    """waits: for other ranks; None unless parts are timed and there are several ranks."""
    counts = count_tokens(batches)
    samples = [row for batch in batches for row in hash_rows(batch)] if number < SAMPLED_STEPS else None
    return take_step(job, number, batches, counts, samples, waits)


def take_step(
    job: TrainingJob,
    number: int,
    batches: List[Batch],
    counts: TokenCounts,
    samples: Optional[List[str]] = None,
    waits: Optional[exposed_communication.WaitMeter] = None,
) -> WorkerStep:
    """Take one optimizer step over batches with `counts` tokens. Never reads the content of a tensor on the host."""
    a = job.assignment
    marks: List[PartEnd] = []

    def mark(name: str) -> None:
        if a.breakdown:
            job.device.synchronize()
            instant_s = job.clock()
            if waits is not None:
                # All waits of a part are recorded together, at its end.
                marks.append((name, instant_s - waits.take_seconds()))
                name = exposed_communication.COMMUNICATION
            marks.append((name, instant_s))

    mark("data")
    targets = torch.tensor(float(counts.trained), device=job.place.device)
    if job.place.data_ranks > 1:
        dist.all_reduce(targets)
        # Ranks with the same data rank have each added the same tokens.
        targets = targets * (job.place.data_ranks / float(job.place.ranks))
    # Data parallelism averages gradients over data ranks, but `targets` is already the sum over them.
    scale = job.place.data_ranks / targets.clamp(min=1.0)
    loss_sum = torch.zeros((), device=job.place.device)
    learning_rate = a.learning_rate * job.factor(number)
    for group in job.optimizer.param_groups:
        group["lr"] = learning_rate
    if job.compute_gradients is not None:
        moved = [batch.to(job.place.device) for batch in batches]
        mark("transfer")
        loss_sum = job.compute_gradients(job.model.logits, cross_entropy_sum, moved, scale)
        mark("pipeline")
    for m, batch in enumerate(batches if job.compute_gradients is None else ()):
        on_device = batch.to(job.place.device)
        mark("transfer")
        with _sync_gradients_if(job.module, m == len(batches) - 1):
            if job.loss_sum is not None:
                with autocast(a.precision, job.place.device):
                    loss = job.loss_sum(job.module, on_device)
            else:
                with autocast(a.precision, job.place.device):
                    logits = job.model.logits(job.module, on_device)
                loss = cross_entropy_sum(logits, on_device.labels)
            mark("forward")
            (loss * scale).backward()  # type: ignore[no-untyped-call]  # torch's
            mark("backward")
        loss_sum += loss.detach()
    if isinstance(job.optimizer, BackwardUpdater):
        norm = job.optimizer.take_gradient_norm()
    else:
        parameters = [p for p in job.module.parameters() if p.requires_grad]
        norm = job.clip(parameters, a.clip_norm if a.clip_norm > 0 else float("inf"))
        job.optimizer.step()
        job.optimizer.zero_grad(set_to_none=True)
    if job.end_step is not None:
        job.end_step()
    mark("optimizer")
    widths = [batch.input_ids.shape[1] for batch in batches]
    return WorkerStep(counts, samples, loss_sum, norm.detach(), learning_rate, marks, job.clock(), widths)


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The float32 sum of the cross-entropy of each label given the logits one position before it."""
    # Shift the labels, not the logits: these are the largest tensor of the step, and a slice would copy them.
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), following.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


def record_edge(
    job: TrainingJob, witness: UpdateWitness, window: int, steps: int, taken: Optional[List[WorkerStep]] = None
) -> float:
    """Synchronize and read the clocks at the edge where window number `window` begins, and write the records.

    steps: taken since the start. The record says how long the witness's readings took after `synchronize`, which shows
    whether work was left, even if `synchronize` does not wait."""
    job.device.synchronize()
    instant_s = job.clock()
    compiled = None if job.compilations is None else job.compilations()
    second_s = job.second()
    witness.read_update()
    witness_s = job.second()
    witness.read_at_rest()
    reread_s = job.second()
    for i, step in enumerate(taken or ()):
        is_last = i == len(taken or ()) - 1
        job.recorder.write(
            "step",
            instant_s=step.instant_s,
            step=steps - len(taken or ()) + i,
            slots=step.counts.slots,
            content=step.counts.content,
            trained=step.counts.trained,
            **({"widths": step.widths} if job.assignment.batching == "bucket" else {}),
            loss_sum=step.loss_sum.item(),
            gradient_norm=None if step.gradient_norm is None else step.gradient_norm.item(),
            learning_rate=step.learning_rate,
            synced=is_last,
            marks=step.marks or None,
            **({} if step.samples is None else {"samples": step.samples}),
        )
    job.recorder.write(
        "edge",
        instant_s=instant_s,
        window=window,
        steps=steps,
        synced=True,
        second_s=second_s,
        witness_s=witness_s,
        reread_s=reread_s,
        **({} if compiled is None else {"compilations": compiled[0], "compile_s": compiled[1]}),
    )
    return instant_s


def agree_on_next(job: TrainingJob, timing: WindowPlanner, done: int, elapsed_s: float) -> Tuple[str, int]:
    """Rank 0's decision, on every rank: (reason to stop, steps of the next window)."""
    reason = "interrupted" if job.is_interrupted() else timing.reason(done, elapsed_s)
    length = timing.length(done)
    if job.place.ranks > 1:
        decision = torch.tensor([STOP_REASONS.index(reason), length], device=job.place.device)
        dist.broadcast(decision, src=0)
        reason, length = STOP_REASONS[int(decision[0])], int(decision[1])
    return reason, length


def _sync_gradients_if(module: Any, is_last: bool) -> Any:
    """A context in which gradients are synchronized over data ranks only for the last micro-batch of a step."""
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
        module.set_requires_gradient_sync(is_last)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if is_last or not hasattr(module, "no_sync") else module.no_sync()
