"""Implements the faults in the worker."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Mapping, Optional

import torch

from tunemark_torch.runtime import Ddp
from tunemark_worker import training_loop
from tunemark_worker.batches import Batch, TokenCounts
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.precision import parameter_dtype

# The step, from 0, in which a one-time fault happens: some steps are finished before it.
WHEN = 6


class Faulty:
    """A bigram model with the fault named in the model's name."""

    def __init__(self) -> None:
        self._step = -1

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        print("a worker that prints on standard output", flush=True)
        self._fault = assignment.model[len("faulty-") :]
        if self._fault == "double-count":
            counted = training_loop.count_tokens
            training_loop.count_tokens = lambda batches: TokenCounts(*(2 * n for n in counted(batches)))
        size, hidden = assignment.architecture["vocab_size"], assignment.architecture["hidden_size"]
        norm = torch.nn.LayerNorm(hidden, bias=False)
        model = torch.nn.Sequential(torch.nn.Embedding(size, hidden), norm, torch.nn.Linear(hidden, size, bias=False))
        if self._fault == "frozen":
            for parameter in model.parameters():
                parameter.register_hook(torch.zeros_like)
        return model.to(place.device, parameter_dtype(assignment.precision))

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self._step += 1
        # Long compared with the delays of a busy machine.
        time.sleep(0.02)
        if self._fault == "drift":
            time.sleep(0.003 * self._step)
        scores: torch.Tensor = module(batch.input_ids)
        if self._step < WHEN:
            return scores
        if self._fault == "nan":
            return scores * float("nan")
        if self._step == WHEN:
            self._trigger_fault(scores)
        return scores

    def _trigger_fault(self, scores: torch.Tensor) -> None:
        if self._fault == "slow-step":
            time.sleep(0.5)
        elif self._fault == "shape":
            torch.zeros(2, 3) @ torch.zeros(4, 5)
        elif self._fault == "illegal":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        elif self._fault == "too-large":
            torch.empty(1 << 50, dtype=torch.uint8)
        elif self._fault == "exit":
            os._exit(7)
        elif self._fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


class WrongGradients:
    """A strategy whose gradients are 1.5 times too large."""

    def __init__(self, assignment: Assignment) -> None:
        pass

    def prepare(self) -> None:
        pass

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: 1.5 * gradient)
        return model

    def selected(self) -> Optional[Mapping[str, Any]]:
        return {"strategy": "faulty-gradients"}


class Late(Ddp):
    """Rank 1 sleeps in every forward pass, so that the others wait for its gradients."""

    SECONDS = 0.05

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        made = super().apply(model, place)
        if place.rank == 1:
            model.register_forward_pre_hook(lambda module, inputs: time.sleep(self.SECONDS))
        return made
