"""The timed part: optimizer steps in contiguous windows. The device is waited for at a window's edges only.

A step is one optimizer update over the global batch. Its loss is the sum of cross-entropies over all predicted tokens
of the global batch, divided by their number: the same however the batch is cut into micro-batches and ranks.
Counts in the records are this rank's own; the job's are their sums over data ranks.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

import torch
import torch.distributed as dist

from tunemark_worker import optimizer as optimizing
from tunemark_worker import recorder as recording
from tunemark_worker import steady, waiting
from tunemark_worker.batches import Batch, Counts, count, digests
from tunemark_worker.contract import IGNORED_LABEL, Assignment, Place
from tunemark_worker.norm import clip, local

# Windows that an interval is first formed of.
FIRST_INTERVAL = 12
# Steps that a run may take besides those asked for until it settles, and as many as were asked for if that is more.
UNSETTLED_STEPS = 32
# First steps of which every rank says what it trains on, for the parent to see that no sample is learnt from twice.
SAMPLED_STEPS = 2
# Seconds between two records of the machine's load.
LOAD_S = 1.0
# What rank 0 tells the others between windows, by position; 0 is to go on.
REASONS = ("", "steps", "target-interval", "budget", "epochs", "interrupted")

Mark = Tuple[str, float]


class Job(NamedTuple):
    """What the loop works on. steps: each item is one step's micro-batches on this rank. factor: of the learning
    rate, by step. clock, second: two clocks of the host. is_interrupted: someone asked for the end."""

    assignment: Assignment
    place: Place
    device: Any
    strategy: Any
    model: Any
    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]
    steps: Iterator[List[Batch]]
    recorder: recording.Recorder
    clock: Callable[[], float]
    second: Callable[[], float]
    is_interrupted: Callable[[], bool]


class Step(NamedTuple):
    """One step's outcome; what the device still computes is left there until the window's edge. samples: digests of
    its rows on this rank, of the first steps; None later."""

    counts: Counts
    samples: Optional[List[str]]
    loss_sum: torch.Tensor
    gradient_norm: torch.Tensor
    learning_rate: float
    marks: List[Mark]
    instant_s: float


def train(job: Job) -> str:
    """Step until there is a reason to stop, and return it."""
    if not job.assignment.breakdown or job.place.ranks == 1:
        return _train(job, None)
    with waiting.waits_of(job.place.device, job.clock) as waits:
        if hasattr(job.strategy, "watch"):
            job.strategy.watch(waits)
        return _train(job, waits)


def _train(job: Job, waits: Optional[waiting.Waits]) -> str:
    witness = _witness(job.module)
    last: List[torch.Tensor] = []
    if hasattr(job.device, "follow"):
        job.device.follow(lambda: _read(witness, last))
    timing = Timing(job.assignment, job.device.waits_free)
    edge_s = _edge(job, witness, 0, 0)
    began_s = load_s = edge_s
    job.recorder.write("load", **recording.load())
    done = window = 0
    while True:
        reason, length = _agree(job, timing, done, edge_s - began_s)
        if reason:
            return reason
        taken: List[Step] = []
        for batches in job.steps:
            taken.append(_step(job, waits, done + len(taken), batches))
            last[:] = [taken[-1].loss_sum]
            if len(taken) == length:
                break
        if not taken:
            return "epochs"
        next_s = _edge(job, witness, window + 1, done + len(taken), taken)
        timing.add(len(taken), next_s - edge_s, sum(step.counts.content for step in taken))
        if next_s - load_s >= LOAD_S:
            job.recorder.write("load", **recording.load())
            load_s = next_s
        if window == 0:
            job.recorder.write("phase", name="first_step")
        edge_s, done, window = next_s, done + len(taken), window + 1


def _read(witness: torch.nn.Parameter, last: List[torch.Tensor]) -> None:
    """Bring the last step's loss to the host, and an element of a weight that its update wrote."""
    for loss in last:
        loss.item()
    _element(witness)


def _step(job: Job, waits: Optional[waiting.Waits], number: int, batches: List[Batch]) -> Step:
    """waits: for other ranks, where parts are timed and there are any."""
    counts = count(batches)
    samples = [row for batch in batches for row in digests(batch)] if number < SAMPLED_STEPS else None
    return advance(job, number, batches, counts, samples, waits)


def advance(
    job: Job,
    number: int,
    batches: List[Batch],
    counts: Counts,
    samples: Optional[List[str]] = None,
    waits: Optional[waiting.Waits] = None,
) -> Step:
    """Take one optimizer step over batches that `counts` tells of; nothing here reads what is in a tensor."""
    a = job.assignment
    marks: List[Mark] = []

    def mark(name: str) -> None:
        if a.breakdown:
            job.device.synchronize()
            instant_s = job.clock()
            if waits is not None:
                # All waits of a part stand together at its end.
                marks.append((name, instant_s - waits.taken()))
                name = waiting.COMMUNICATION
            marks.append((name, instant_s))

    mark("data")
    targets = torch.tensor(float(counts.trained), device=job.place.device)
    if job.place.data_ranks > 1:
        dist.all_reduce(targets)
        # Ranks that share a data rank have each added the same tokens.
        targets = targets * (job.place.data_ranks / float(job.place.ranks))
    # Data parallelism averages gradients over data ranks, and the division is by everybody's tokens already.
    scale = job.place.data_ranks / targets.clamp(min=1.0)
    loss_sum = torch.zeros((), device=job.place.device)
    pipelined = getattr(job.strategy, "gradients", None)
    if pipelined is not None:
        every = [batch.to(job.place.device) for batch in batches]
        mark("transfer")
        loss_sum = pipelined(job.model.logits, loss_of, every, scale)
        mark("pipeline")
    for m, batch in enumerate(batches if pipelined is None else ()):
        on_device = batch.to(job.place.device)
        mark("transfer")
        with _communicating(job.module, m == len(batches) - 1):
            with optimizing.autocast(a.precision, job.place.device):
                logits = job.model.logits(job.module, on_device)
            loss = loss_of(logits, on_device.labels)
            mark("forward")
            (loss * scale).backward()  # type: ignore[no-untyped-call]  # torch's
            mark("backward")
        loss_sum += loss.detach()
    parameters = [p for p in job.module.parameters() if p.requires_grad]
    norm = getattr(job.strategy, "clip", clip)(parameters, a.clip_norm if a.clip_norm > 0 else float("inf"))
    learning_rate = a.learning_rate * job.factor(number)
    for group in job.optimizer.param_groups:
        group["lr"] = learning_rate
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    mark("optimizer")
    return Step(counts, samples, loss_sum, norm.detach(), learning_rate, marks, job.clock())


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum, in float32, of the cross-entropy of each label given the logits one position before it."""
    # The labels are shifted, not the logits: those are the largest tensor of the step, and a slice would copy them.
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), following.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


def _edge(job: Job, witness: torch.nn.Parameter, window: int, steps: int, taken: Optional[List[Step]] = None) -> float:
    """Wait for the device and read the clocks: here one window ends and window number `window` begins.

    steps: taken since the start. witness_s: when an element of an updated weight had reached the host, which shows
    that there was nothing left to wait for, whatever `synchronize` does."""
    job.device.synchronize()
    instant_s = job.clock()
    second_s = job.second()
    _element(witness)
    witness_s = job.second()
    for i, step in enumerate(taken or ()):
        last = i == len(taken or ()) - 1
        job.recorder.write(
            "step",
            instant_s=step.instant_s,
            step=steps - len(taken or ()) + i,
            slots=step.counts.slots,
            content=step.counts.content,
            trained=step.counts.trained,
            targets=step.counts.trained,
            loss_sum=step.loss_sum.item(),
            gradient_norm=step.gradient_norm.item(),
            learning_rate=step.learning_rate,
            synced=last,
            marks=step.marks or None,
            **({} if step.samples is None else {"samples": step.samples}),
        )
    job.recorder.write(
        "edge", instant_s=instant_s, window=window, steps=steps, synced=True, second_s=second_s, witness_s=witness_s
    )
    return instant_s


class Timing:
    """What the windows so far say: how long the next one should be, and whether enough has been measured."""

    def __init__(self, assignment: Assignment, waits_free: bool) -> None:
        self._a, self._waits_free = assignment, waits_free
        self._steps: List[int] = []
        self._seconds: List[float] = []
        self._tokens: List[int] = []
        self._warm: Optional[int] = None
        self._next_warm, self._next_interval = 1, FIRST_INTERVAL

    def add(self, steps: int, seconds: float, tokens: int) -> None:
        self._steps.append(steps)
        self._seconds.append(seconds)
        self._tokens.append(tokens)

    def reason(self, done: int, elapsed_s: float) -> str:
        """Why to stop now; empty where there is no reason."""
        if self._a.budget_s is not None and elapsed_s >= self._a.budget_s:
            return "budget"
        warm = self._warm_windows()
        if warm is None:
            # A run that never settles would never end: then the steps asked for are its second half.
            if self._a.steps is not None and done >= self._a.steps + max(self._a.steps, UNSETTLED_STEPS):
                return "steps"
            return ""
        if self._a.steps is not None and done - sum(self._steps[:warm]) >= self._a.steps:
            return "steps"
        timed = len(self._steps) - warm
        if self._a.target_interval > 0 and timed >= self._next_interval:
            # Looking seldom keeps this cheap, and a chance narrowness from being waited for.
            self._next_interval = timed + max(1, timed // 8)
            interval = steady.within_run(self._seconds[warm:], self._tokens[warm:])
            if interval.low is None or interval.high is None:
                return ""
            if (interval.high - interval.low) / 2 < self._a.target_interval * interval.value:
                return "target-interval"
        return ""

    def length(self, done: int) -> int:
        """Steps of the next window."""
        if self._waits_free or not self._seconds:
            return 1
        length = int(self._a.window_s * self._steps[-1] / max(self._seconds[-1], 1e-9)) + 1
        if self._a.steps is not None:
            length = min(length, max(1, self._a.steps // 8))
            if self._a.warmup is not None:
                left = self._a.warmup - done if done < self._a.warmup else self._a.warmup + self._a.steps - done
                length = min(length, left)
        return max(1, length)

    def _warm_windows(self) -> Optional[int]:
        """Windows of the warm-up; None while it lasts."""
        if self._a.warmup is None:
            # Once found it stays. A run that never becomes steady is asked seldom: the answer costs more with length.
            if self._warm is None and len(self._steps) >= self._next_warm:
                self._next_warm = len(self._steps) + max(1, len(self._steps) // 16)
                self._warm = steady.warmup_end([s / n for s, n in zip(self._seconds, self._steps)])
        elif self._warm is None:
            done = 0
            for window, steps in enumerate([0, *self._steps]):
                done += steps
                if done >= self._a.warmup:
                    self._warm = window
                    break
        return self._warm


def _agree(job: Job, timing: Timing, done: int, elapsed_s: float) -> Tuple[str, int]:
    """Rank 0's decision: a reason to stop, or the next window's steps."""
    reason = "interrupted" if job.is_interrupted() else timing.reason(done, elapsed_s)
    length = timing.length(done)
    if job.place.ranks > 1:
        told = torch.tensor([REASONS.index(reason), length], device=job.place.device)
        dist.broadcast(told, src=0)
        reason, length = REASONS[int(told[0])], int(told[1])
    return reason, length


def _communicating(module: Any, is_last: bool) -> Any:
    """Gradients are exchanged once a step, with the last micro-batch."""
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
        module.set_requires_gradient_sync(is_last)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if is_last or not hasattr(module, "no_sync") else module.no_sync()


def _witness(module: torch.nn.Module) -> torch.nn.Parameter:
    """The last trainable parameter of which something lies here: the last that the optimizer updates."""
    return [p for p in module.parameters() if p.requires_grad and local(p).numel()][-1]


def _element(parameter: torch.nn.Parameter) -> float:
    """Bring an element to the host, of this rank's own part."""
    return local(parameter).flatten()[0].item()
