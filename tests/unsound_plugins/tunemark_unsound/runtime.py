"""Implements the faults in the worker."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import torch

from tunemark_worker import training_loop
from tunemark_worker.batches import Batch, TokenCounts
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.no_strategy import NoStrategy
from tunemark_worker.precision import parameter_dtype

# The original function, which one of the faults replaces.
COUNT = vars(training_loop)["count_tokens"]


class Unsound:
    """A bigram model with the fault named in the model's name."""

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        self._fault = assignment.model[len("unsound-") :]
        size, hidden = assignment.architecture["vocab_size"], assignment.architecture["hidden_size"]
        model = Model(size, hidden, bias=self._fault == "parameters")
        if self._fault == "frozen":
            model.embedding.requires_grad_(False)
        if self._fault == "random":
            torch.nn.init.normal_(model.head.weight, std=0.1 + 0.1 * random.random())
        if self._fault == "child":
            # In its own session, so that it survives the end of the job's session.
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        vars(training_loop)["count_tokens"] = _count_padding if self._fault == "counts" else COUNT
        return model.to(place.device, parameter_dtype(assignment.precision))

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        hidden: Any = module.embedding(batch.input_ids) * module.scale
        if self._fault == "detached":
            hidden = hidden.detach()
        if self._fault == "crossing":
            hidden = hidden.cumsum(1) / 8
        if self._fault == "future":
            hidden = hidden + 0.5 * torch.roll(hidden, -1, 1)
        scores: torch.Tensor = module.head(hidden)
        if self._fault == "flops":
            scores = (scores + module.head(hidden)) / 2
        if self._fault == "shifted":
            scores = torch.roll(scores, 1, 1)
        if self._fault == "relabelled":
            batch.labels[:, :-1] = batch.labels[:, 1:].clone()
        return scores


class Model(torch.nn.Module):
    """An embedding, a scale and a head."""

    def __init__(self, size: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(size, hidden)
        self.scale = torch.nn.Parameter(torch.ones(hidden))
        self.head = torch.nn.Linear(hidden, size, bias=bias)


def _count_padding(batches: Any) -> TokenCounts:
    counted = COUNT(batches)
    return TokenCounts(counted.slots, counted.slots, counted.trained)


class WrongClip(NoStrategy):
    """A strategy whose `clip` cannot be called with a norm."""

    def clip(self, parameters: Any) -> torch.Tensor:
        return torch.zeros(())
