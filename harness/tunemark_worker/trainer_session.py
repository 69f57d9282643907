"""Another program's training loop under the worker's witnesses.

The program gets the run's model and micro-batches and says when a step has ended. All else is the worker's: it stamps
the instants, waits for the device at the edges of windows, and counts the tokens that pass the model's forward, which
it compares with those of the token file. It reads weights to see that they were updated. Nothing that the program says
of itself enters a rate.
"""

from __future__ import annotations

import collections
from typing import Any, Callable, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch

from tunemark_worker import recorder as recording
from tunemark_worker.batches import Batch, TokenCounts, count_tokens, hash_rows
from tunemark_worker.capabilities import ReportsOwnRate, TrainerRuntime, WaitsByReading
from tunemark_worker.contract import IGNORED_LABEL, Assignment, Place
from tunemark_worker.gradient_norm import local_part
from tunemark_worker.precision import autocast
from tunemark_worker.stop_condition import WindowPlanner
from tunemark_worker.training_loop import (
    LOAD_S,
    SAMPLED_STEPS,
    TrainingJob,
    WorkerStep,
    agree_on_next,
    cross_entropy_sum,
    record_edge,
    sum_tokens,
)
from tunemark_worker.update_witness import UpdateWitness

# Elements of the last matrix that are compared at each edge, to see whether the step updated it.
COMPARED_ELEMENTS = 64
# What models call their token ids, in the order in which they are looked for.
ID_NAMES = ("input_ids", "idx", "tokens", "inputs", "x")
# Steps that a program may end after it was told to stop, before it is stopped by an exception.
STEPS_AFTER_STOP = 2

Number = Union[torch.Tensor, float]


class ForwardPass(NamedTuple):
    """What passed the model at once. mask: 1 where there is content, labels: as they were passed; None if not."""

    ids: torch.Tensor
    mask: Optional[torch.Tensor]
    labels: Optional[torch.Tensor]


class _EndedStep(NamedTuple):
    """A step as the program ended it. passed: its forward passes. loss: mean over its predicted tokens."""

    passed: List[ForwardPass]
    loss: Optional[Number]
    gradient_norm: Optional[Number]
    learning_rate: Optional[float]
    instant_s: float


class TrainerSession:
    """What another program's loop trains with. module: the run's model on its device, with the run's weights;
    a program with a model class of its own takes the weights from it. assignment, place: of the run."""

    def __init__(self, job: TrainingJob, adopt: Callable[[torch.nn.Module], None], differs: Mapping[str, str]) -> None:
        self._has_own_rows = "rows" in differs
        self.assignment: Assignment = job.assignment
        self.place: Place = job.place
        self.module: torch.nn.Module = job.module
        self.reason = ""
        self._job, self._adopt = job, adopt
        self._witness: Optional[UpdateWitness] = None
        self._sample = torch.empty(0)
        self._expected: Deque[Batch] = collections.deque()
        self._passed: List[ForwardPass] = []
        self._taken: List[_EndedStep] = []
        self._last: List[torch.Tensor] = []
        self._timing = WindowPlanner(job.assignment, job.device.is_synchronous)
        self._first: Optional[List[Batch]] = None
        self._is_begun = self._is_exhausted = False
        self._began_s = self._edge_s = self._load_s = 0.0
        self._done = self._window = self._length = self._late_steps = 0
        self._counts: Dict[str, Any] = {"windows": 0, "still": 0, "passed": 0, "foreign": 0, "first_foreign": None}

    # -- for the program

    def watch(self, module: torch.nn.Module) -> None:
        """Say which module is trained, before its first forward pass. Its forward is hooked, and its weights sampled.
        ValueError if it has not the parameters of the run's model."""
        wanted, found = (sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (self.module, module))
        if wanted != found:
            raise ValueError("the trainer trains {:,} parameters, the run's model has {:,}".format(found, wanted))
        register: Any = module.register_forward_pre_hook
        register(self._note_forward, with_kwargs=True)
        self._adopt(module)
        self._witness = witness = UpdateWitness(module)
        self._sample = self._take_sample(module)
        self._sampled = module
        if isinstance(self._job.device, WaitsByReading):
            self._job.device.use_reader(witness.read_update)
        self._begin_if_ready()

    @property
    def is_watching(self) -> bool:
        return self._witness is not None

    def begin(self, module: torch.nn.Module) -> None:
        """Watch the module of a program that has rows of its own, and open the first window."""
        self._is_begun = True
        self.watch(module)

    def step_ended_or_stop(self, loss: Optional[Number]) -> None:
        """Like `step_ended`, for a program that is not asked whether it stops: raises `TrainingStopped`."""
        if not self.step_ended(loss):
            raise TrainingStopped("enough was measured")

    def micro_batches(self) -> Iterator[Batch]:
        """The run's micro-batches on the host, in their order; endless unless the run has a number of epochs."""
        for batches in self._steps():
            for batch in batches:
                self._expected.append(batch)
                if not self._is_begun:
                    self._is_begun = True
                    self._begin_if_ready()
                yield batch
        self._is_exhausted = True

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, numbered from 0."""
        return self.assignment.learning_rate * self._job.factor(step)

    def step_ended(
        self,
        loss: Optional[Number],
        gradient_norm: Optional[Number] = None,
        learning_rate: Optional[float] = None,
    ) -> bool:
        """Say that the optimizer has stepped; False if training has to stop. loss: the mean over the step's predicted
        tokens, before the step; gradient_norm: before clipping. Both as tensors where the device should not be waited
        for."""
        if self._witness is None:
            raise RuntimeError("the trainer ended a step before it said which module it trains")
        if self.reason:
            self._late_steps += 1
            if self._late_steps > STEPS_AFTER_STOP:
                raise TrainingStopped("the trainer goes on after it was told to stop")
            return False
        passed, self._passed = self._passed, []
        self._last[:] = [loss] if isinstance(loss, torch.Tensor) else []
        self._taken.append(_EndedStep(passed, loss, gradient_norm, learning_rate, self._job.clock()))
        if len(self._taken) >= self._length:
            self._end_window(self._witness)
        return not self.reason

    # -- for the worker

    def compute_reference(self) -> None:
        """Record the first step's loss, computed by the worker itself before the program does anything."""
        job = self._job
        if self._has_own_rows:
            return
        self._first = next(job.steps, None)
        if self._first is None:
            return
        total = torch.zeros((), device=job.place.device)
        with torch.no_grad():
            for batch in (each.to(job.place.device) for each in self._first):
                with autocast(job.assignment.precision, job.place.device):
                    logits = job.model.logits(job.module, batch)
                total += cross_entropy_sum(logits, batch.labels)
        job.recorder.write("reference", loss_sum=total.item(), trained=count_tokens(self._first).trained)
        # Before the first step of the program, and so no part of the time until then.
        job.recorder.write("phase", name="looked_before")

    def finish(self) -> str:
        """Why the training has stopped, after the program has returned. RuntimeError if it stopped by itself."""
        if self.reason:
            return self.reason
        if self._taken and self._witness is not None:
            self._end_window(self._witness)
        if self.reason or self._is_exhausted:
            return self.reason or "epochs"
        words = "the trainer ended by itself after {} steps, before it was told to stop"
        raise RuntimeError(words.format(self._done))

    def write_end(self, own: Optional[Any]) -> None:
        self._job.recorder.write("trainer_end", own=None if own is None else dict(own), **self._counts)

    # -- inside

    def _steps(self) -> Iterator[List[Batch]]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._job.steps

    def _begin_if_ready(self) -> None:
        """Open the first window once the program has its module and takes its first data."""
        if not self._is_begun or self._witness is None or self._length:
            return
        self._began_s = self._edge_s = self._load_s = record_edge(self._job, self._witness, 0, 0)
        self._job.recorder.write("load", **recording.read_load())
        self._decide()

    def _decide(self) -> None:
        reason, length = agree_on_next(self._job, self._timing, self._done, self._edge_s - self._began_s)
        self.reason, self._length = reason, max(1, length)

    def _end_window(self, witness: UpdateWitness) -> None:
        ended, self._taken = self._taken, []
        if not self._length:
            raise RuntimeError("the trainer ended a step, but took none of the run's micro-batches")
        taken = [self._count(self._done + i, step) for i, step in enumerate(ended)]
        next_s = record_edge(self._job, witness, self._window + 1, self._done + len(taken), taken)
        self._timing.add(len(taken), next_s - self._edge_s, *sum_tokens(taken))
        if next_s - self._load_s >= LOAD_S:
            self._job.recorder.write("load", **recording.read_load())
            self._load_s = next_s
        if self._window == 0:
            self._job.recorder.write("phase", name="first_step")
        sample = self._take_sample(self._sampled)
        self._counts["windows"] += 1
        self._counts["still"] += bool(torch.equal(sample, self._sample))
        self._sample = sample
        self._edge_s, self._done, self._window = next_s, self._done + len(taken), self._window + 1
        self._decide()

    def _count(self, number: int, step: _EndedStep) -> WorkerStep:
        """The step with the tokens that passed the model: of the token file's micro-batch where the ids are its ids,
        else counted from the ids alone."""
        counts: List[TokenCounts] = []
        samples: List[str] = []
        for each in step.passed:
            batch = self._expected.popleft() if self._expected else None
            self._counts["passed"] += 1
            found = each.ids.cpu().long()
            shape = match_batch(found, batch)
            if batch is not None and shape is not None:
                whole = count_tokens([batch])
                counts.append(TokenCounts(shape, whole.content, whole.trained))
                samples += hash_rows(batch) if number < SAMPLED_STEPS else []
                continue
            self._counts["foreign"] += 1
            if self._counts["first_foreign"] is None:
                self._counts["first_foreign"] = number
            counts.append(self._count_foreign(each, found))
        total = TokenCounts(*[sum(column) for column in zip(*counts)]) if counts else TokenCounts(0, 0, 0)
        loss = float("nan") if step.loss is None else float(step.loss)
        norm = None if step.gradient_norm is None else torch.as_tensor(float(step.gradient_norm))
        loss_sum = torch.tensor(loss * total.trained, dtype=torch.float64)
        kept = samples if number < SAMPLED_STEPS and samples else None
        widths = [each.ids.shape[-1] for each in step.passed]
        return WorkerStep(total, kept, loss_sum, norm, step.learning_rate, [], step.instant_s, widths)

    def _count_foreign(self, each: ForwardPass, ids: torch.Tensor) -> TokenCounts:
        """The tokens of rows that are not the token file's, by the mask and the labels that were passed with them."""
        is_content = ids != self.assignment.token_file.pad_id
        if each.mask is not None and each.mask.shape == ids.shape:
            is_content = each.mask.cpu() != 0
        elif self._has_own_rows:
            is_content = torch.ones_like(ids, dtype=torch.bool)
        content = int(is_content.sum())
        if each.labels is not None and each.labels.shape == ids.shape:
            return TokenCounts(ids.numel(), content, int((each.labels[..., 1:] != IGNORED_LABEL).sum()))
        rows = ids.shape[0] if ids.dim() > 1 else 1
        return TokenCounts(ids.numel(), content, max(content - rows, 0))

    def _note_forward(self, module: Any, args: Tuple[Any, ...], named: Dict[str, Any]) -> None:
        # Evaluation and sampling are no training; recomputation of a checkpoint does not come here.
        if torch.is_grad_enabled():
            ids = find_ids(args, named)
            if ids is not None:
                # A copy, as the program may use the memory again before the window ends.
                others = [named.get(name) for name in ("attention_mask", "labels")]
                mask, labels = (each.detach().clone() if isinstance(each, torch.Tensor) else None for each in others)
                self._passed.append(ForwardPass(ids.detach().clone(), mask, labels))

    def _take_sample(self, module: torch.nn.Module) -> torch.Tensor:
        """Elements of the last trained matrix, on the host."""
        trained = [local_part(p) for p in module.parameters() if p.requires_grad and local_part(p).numel()]
        part = ([each for each in trained if each.dim() > 1] or trained)[-1].flatten()
        return part[:: max(1, part.numel() // COMPARED_ELEMENTS)].clone().cpu()


class TrainingStopped(BaseException):
    """Ends a program's loop that cannot be told to stop otherwise: no error, and so not caught as one."""


def find_ids(args: Tuple[Any, ...], named: Dict[str, Any]) -> Optional[torch.Tensor]:
    """The token ids among the arguments of a model's forward; None if there are none."""
    for value in [*(named[name] for name in ID_NAMES if name in named), *args]:
        if isinstance(value, torch.Tensor) and value.dtype in (torch.int64, torch.int32):
            return value
    return None


def match_batch(ids: torch.Tensor, batch: Optional[Batch]) -> Optional[int]:
    """The slots that passed the model, if these ids are the micro-batch's, with its padding or with less; else None."""
    if batch is None:
        return None
    if ids.shape == batch.input_ids.shape and torch.equal(ids, batch.input_ids):
        return ids.numel()
    is_content = batch.document_ids >= 0
    if ids.dim() == 2 and ids.shape[0] == batch.input_ids.shape[0] and ids.shape[1] < batch.input_ids.shape[1]:
        # Rows padded to the longest of them: what is cut off must be padding.
        width = ids.shape[1]
        whole = torch.equal(ids[is_content[:, :width]], batch.input_ids[is_content])
        return ids.numel() if whole else None
    content = batch.input_ids[is_content]
    flat = ids.flatten()
    return flat.numel() if flat.numel() >= content.numel() and torch.equal(flat[: content.numel()], content) else None


def train(job: TrainingJob, runtime: TrainerRuntime, adopt: Callable[[torch.nn.Module], None]) -> str:
    """Let a program's loop train until there is a reason to stop, and return the reason.

    adopt: told which module is trained."""
    facts = dict(runtime.facts())
    job.recorder.write("trainer", name=job.assignment.trainer, **facts)
    session = TrainerSession(job, adopt, facts.get("differs") or {})
    session.compute_reference()
    torch.manual_seed(job.assignment.seed)
    try:
        runtime.train(session)
    except TrainingStopped:
        if not session.reason:
            raise
    reason = session.finish()
    session.write_end(runtime.own_rate() if isinstance(runtime, ReportsOwnRate) else None)
    return reason
