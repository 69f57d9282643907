"""In the worker: PyTorch Lightning's `Trainer`."""

from __future__ import annotations

from typing import Any, Mapping

import lightning
import torch

from tunemark_trainers.transformers_trainer import SessionRows, collate_rows
from tunemark_worker.contract import Assignment
from tunemark_worker.optimizer import make_optimizer
from tunemark_worker.trainer_session import TrainerSession

# What the Trainer calls the precisions.
PRECISIONS = {"fp32": "32-true", "bf16-autocast": "bf16-mixed", "bf16": "bf16-true"}


class LightningTrainer:
    """Lightning's `Trainer` on a `LightningModule` around the run's model. It states no rate of tokens."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment

    def facts(self) -> Mapping[str, Any]:
        return {"version": lightning.__version__, "differs": find_weighting(self._a)}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        session.watch(session.module)
        rows: Any = SessionRows(session)
        loader = torch.utils.data.DataLoader(rows, batch_size=a.micro_batch, collate_fn=collate_rows)
        kind = "cpu" if session.place.device == "cpu" else "gpu"
        precision: Any = PRECISIONS[a.precision]
        trainer = lightning.Trainer(
            accelerator=kind,
            devices=1,
            precision=precision,
            max_epochs=-1 if a.epochs is None else 1,
            accumulate_grad_batches=a.gradient_accumulation,
            gradient_clip_val=a.clip_norm if a.clip_norm > 0 else None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(SessionModule(session), loader)


class SessionModule(lightning.LightningModule):  # type: ignore[misc]  # published for another interpreter
    """The run's model as Lightning trains it."""

    def __init__(self, session: TrainerSession) -> None:
        super().__init__()
        self.model, self._session = session.module, session
        self._losses: Any = []
        self._steps = 0

    def training_step(self, batch: Any, number: int) -> Any:
        loss = self.model(**batch).loss
        self._losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        a = self._session.assignment
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = make_optimizer(a.optimizer, trained, a.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._session.learning_rate(step) / a.learning_rate
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, outputs: Any, batch: Any, number: int) -> None:
        if self.trainer.global_step == self._steps:
            return
        losses, self._losses = self._losses, []
        rate = self._session.learning_rate(self._steps)
        self._steps = self.trainer.global_step
        if not self._session.step_ended(torch.stack(losses).mean(), None, rate):
            self.trainer.should_stop = True


def find_weighting(a: Assignment) -> Mapping[str, str]:
    """What a loop differs in that averages the means of accumulated micro-batches."""
    if a.gradient_accumulation == 1:
        return {}
    return {"loss": "each accumulated micro-batch weighs the same, however many tokens of it have a label"}
