"""In the worker: a plain loop with accelerate's `Accelerator`, as its documentation shows it.

Of accumulated micro-batches each token weighs the same, by the documentation's way for samples of different lengths.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional

import accelerate
import torch

from tunemark_trainers.transformers_trainer import SessionRows, collate_rows
from tunemark_worker.contract import IGNORED_LABEL, Assignment
from tunemark_worker.optimizer import make_optimizer
from tunemark_worker.trainer_session import TrainerSession


class AccelerateLoop:
    """A loop over batches that `Accelerator.prepare` has prepared."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment

    def facts(self) -> Mapping[str, Any]:
        return {"version": accelerate.__version__, "differs": {}}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        accelerator = accelerate.Accelerator(
            mixed_precision="bf16" if a.precision == "bf16-autocast" else "no",
            gradient_accumulation_steps=a.gradient_accumulation,
            cpu=session.place.device == "cpu",
        )
        session.watch(session.module)
        trained = [p for p in session.module.parameters() if p.requires_grad]
        rows: Any = SessionRows(session)
        loader = torch.utils.data.DataLoader(rows, batch_size=a.micro_batch, collate_fn=collate_rows)
        prepared: Any = accelerator.prepare(
            session.module, make_optimizer(a.optimizer, trained, a.learning_rate), loader
        )
        model, optimizer, loader = prepared
        batches, step, goes_on = iter(loader), 0, True
        while goes_on:
            accumulated = _take(batches, a.gradient_accumulation)
            if len(accumulated) < a.gradient_accumulation:
                return
            items = sum((batch["labels"][:, 1:] != IGNORED_LABEL).sum() for batch in accumulated)
            total: Any = 0.0
            for batch in accumulated:
                loss = model(**batch, num_items_in_batch=items).loss
                total = total + loss.detach()
                # `backward` divides by the number of accumulated micro-batches.
                accelerator.backward(loss * a.gradient_accumulation)
            norm: Optional[Any] = accelerator.clip_grad_norm_(trained, a.clip_norm) if a.clip_norm > 0 else None
            rate = session.learning_rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            goes_on = session.step_ended(total, norm, rate)
            step += 1


def _take(batches: Iterator[Any], count: int) -> List[Dict[str, torch.Tensor]]:
    found = []
    for _ in range(count):
        batch = next(batches, None)
        if batch is None:
            break
        found.append(batch)
    return found
