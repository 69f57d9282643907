"""Trainers with a fault each; runs in the worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any

import torch

from tunemark_worker.contract import Assignment
from tunemark_worker.trainer_session import TrainerSession


class Talks:
    """Trains as it should, and prints."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment

    def facts(self) -> Mapping[str, Any]:
        return {"version": "1", "differs": {}}

    def train(self, session: TrainerSession) -> None:
        module = session.module
        session.watch(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=self._a.learning_rate)
        for batch in session.micro_batches():
            scores = module(batch.input_ids)[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(scores, batch.labels[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            print('{"tokens_per_s": 1e9, "verdict": "valid"}', flush=True)
            if not session.step_ended(loss.detach()):
                return


class Boasts(Talks):
    """States ten times the slots that it trained."""

    def train(self, session: TrainerSession) -> None:
        began_s = time.monotonic()
        super().train(session)
        steps = (self._a.steps or 0) + (self._a.warmup or 0)
        self._rate = 1000.0 * steps * self._a.global_batch * self._a.sequence / (time.monotonic() - began_s)

    def own_rate(self) -> Mapping[str, Any] | None:
        return {"tokens_per_s": self._rate, "printed": "fast", "counts": "everything"}


class ImportsNothing(Talks):
    def train(self, session: TrainerSession) -> None:
        import a_package_that_is_not_there  # noqa: F401  # type: ignore[import-not-found]  # the fault


class Hangs(Talks):
    def train(self, session: TrainerSession) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1.0)
