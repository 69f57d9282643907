"""In the worker: the loop of transformers' `Trainer`.

Model, rows, optimizer and schedule are the run's; batching, accumulation, precision, clipping and the update are the
Trainer's. What differs from its defaults so that it trains the same: weight decay on all parameters, as torch's AdamW
has by itself; rows as they come from the token file, without a shuffle.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Mapping, Optional

import torch
import transformers

from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment
from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.trainer_session import TrainerSession

# Optimizer steps between two lines of the Trainer's log, which it waits for the device for.
LOGGING_STEPS = 10
# More steps than any run takes: the session says when to stop.
ENDLESS_STEPS = 10**9


class HfTrainer:
    """transformers' `Trainer` on the run's model."""

    def __init__(self, assignment: Assignment) -> None:
        self._own: Optional[Dict[str, Any]] = None

    def facts(self) -> Mapping[str, Any]:
        return {"version": transformers.__version__, "differs": {}}

    def train(self, session: TrainerSession) -> None:
        session.watch(session.module)
        rows = {"train_dataset": SessionRows(session), "data_collator": collate_rows}
        trainer = make_trainer(transformers.Trainer, session, make_arguments(session), **rows)
        trainer.train()
        self._own = find_own_rate(trainer.state.log_history)

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        return self._own


def make_arguments(session: TrainerSession, kind: Any = transformers.TrainingArguments, **more: Any) -> Any:
    """`TrainingArguments`, or arguments of a class derived from them, that ask for what the run's assignment says."""
    a = session.assignment
    return kind(
        output_dir=os.path.join(os.getcwd(), "trainer"),
        per_device_train_batch_size=a.micro_batch,
        gradient_accumulation_steps=a.gradient_accumulation,
        max_steps=ENDLESS_STEPS,
        learning_rate=a.learning_rate,
        weight_decay=0.01 if a.optimizer == "adamw" else 0.0,
        max_grad_norm=a.clip_norm,
        bf16=a.precision == "bf16-autocast",
        use_cpu=session.place.device == "cpu",
        seed=a.seed,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        logging_steps=LOGGING_STEPS,
        include_num_input_tokens_seen="all",
        remove_unused_columns=False,
        disable_tqdm=True,
        **more,
    )


def make_trainer(kind: Any, session: TrainerSession, arguments: Any, **more: Any) -> Any:
    """A Trainer, or one of a class derived from it, that ends the session's steps. more: what else it is made with."""
    a = session.assignment

    class _Observed(kind):  # type: ignore[misc]  # a class that is known here only
        def training_step(self, *args: Any, **named: Any) -> Any:
            loss = super().training_step(*args, **named)
            calls.losses.append(loss)
            return loss

        def _get_grad_norm(self, *args: Any, **named: Any) -> Any:
            calls.gradient_norm = super()._get_grad_norm(*args, **named)
            return calls.gradient_norm

        def get_decay_parameter_names(self, model: Any) -> List[str]:
            return [name for name, _ in model.named_parameters()]

        def create_optimizer(self, *args: Any, **named: Any) -> Any:
            if a.optimizer != "adamw" and getattr(self, "optimizer", None) is None:
                trained = [p for p in session.module.parameters() if p.requires_grad]
                found: Any = getattr(torch.optim, OPTIMIZERS[a.optimizer].class_name)
                self.optimizer = found(trained, lr=a.learning_rate)
            return super().create_optimizer(*args, **named)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen, lambda step: session.learning_rate(step) / a.learning_rate
            )
            return self.lr_scheduler

    calls = StepCallback(session)
    return _Observed(
        model=session.module,
        args=arguments,
        callbacks=[calls],
        **more,
    )


class StepCallback(transformers.TrainerCallback):
    """Ends the session's steps when the Trainer ends its own. losses: of the step's micro-batches, each a share of the
    step's mean."""

    def __init__(self, session: TrainerSession) -> None:
        self._session = session
        self.losses: List[torch.Tensor] = []
        self.gradient_norm: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> Any:
        losses, self.losses = self.losses, []
        loss = torch.stack(losses).sum() if losses else None
        rate = self._session.learning_rate(state.global_step - 1)
        if not self._session.step_ended(loss, self.gradient_norm, rate):
            # The last line of its log has the rate of the whole training.
            control.should_log = control.should_training_stop = True
        return control


class SessionRows(torch.utils.data.IterableDataset):  # type: ignore[type-arg]  # it takes none in Python 3.8
    """The rows of the session's micro-batches, one at a time, as a DataLoader takes them."""

    def __init__(self, session: TrainerSession) -> None:
        self._session = session

    def __iter__(self) -> Iterator[Dict[str, torch.Tensor]]:
        for batch in self._session.micro_batches():
            named = name_tensors(batch)
            for r in range(batch.input_ids.shape[0]):
                yield {name: tensor[r] for name, tensor in named.items()}


def name_tensors(batch: Batch) -> Dict[str, torch.Tensor]:
    """The arguments of a model's forward. Documents of a packed row are told apart by positions that restart, by which
    transformers makes the mask; padding is on the right, where causal attention does not see it."""
    named = {"input_ids": batch.input_ids, "labels": batch.labels}
    if batch.packed:
        named["position_ids"] = batch.positions
    return named


def collate_rows(rows: List[Dict[str, torch.Tensor]]) -> Dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def find_own_rate(history: List[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """The rate in the last line of the Trainer's log."""
    for line in reversed(history):
        if "train_tokens_per_second" in line:
            counts = "all ids of the batches, padding included, since training began, warm-up included"
            return {"tokens_per_s": line["train_tokens_per_second"], "printed": str(line), "counts": counts}
    return None
