"""In the worker: a script of anybody's, as `python train.py` would run it.

It says by `lap` when its optimizer steps. Where it trains by transformers' `Trainer`, it needs no line for that: a
callback is put in.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any, Mapping

from tunemark_worker.contract import Assignment
from tunemark_worker.script_steps import open_session
from tunemark_worker.trainer_session import TrainerSession, TrainingStopped

# What a run's settings say and a script does as it likes.
OWN = {
    "rows": "the script's own: tokens are counted as they pass the model's forward, padding by the mask beside them",
    "padding": "the script's own",
    "weights": "the script's own",
    "settings": "batches, precision, optimizer, learning rate and schedule are the script's own",
}


class ScriptTrainer:
    """Runs the script of the option `path` in this process."""

    def __init__(self, assignment: Assignment) -> None:
        self._path = assignment.trainer_options["path"]

    def facts(self) -> Mapping[str, Any]:
        return {"version": None, "differs": OWN}

    def train(self, session: TrainerSession) -> None:
        open_session(session)
        _observe_transformers(session)
        sys.path.insert(0, os.path.dirname(self._path))
        sys.argv = [self._path]
        try:
            runpy.run_path(self._path, run_name="__main__")
        except SystemExit as error:
            if error.code:
                raise RuntimeError("the script ended with {!r}".format(error.code)) from error
        if not session.is_watching:
            raise RuntimeError(
                "the script called no `lap`, and used no transformers Trainer: nothing says when a step ends. Add "
                "`from tunemark_worker import lap`, `lap(model)` before the loop and `lap(model, loss)` after each "
                "optimizer.step()"
            )


def _observe_transformers(session: TrainerSession) -> None:
    """Put a callback into every `Trainer` of transformers that the script trains with."""
    try:
        import transformers
    except ImportError:
        return
    kind: Any = transformers.Trainer
    train = kind.train

    def observed(trainer: Any, *args: Any, **named: Any) -> Any:
        from tunemark_trainers.transformers_trainer import StepCallback

        calls = StepCallback(session)
        compute = trainer.training_step

        def training_step(*given: Any, **more: Any) -> Any:
            loss = compute(*given, **more)
            calls.losses.append(loss.detach())
            return loss

        trainer.training_step = training_step
        trainer.add_callback(calls)
        session.begin(trainer.model)
        result = train(trainer, *args, **named)
        if session.reason:
            # What follows the training in the script, such as saving, is not measured.
            raise TrainingStopped("enough was measured")
        return result

    kind.train = observed
