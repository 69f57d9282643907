"""In the worker: TRL's `SFTTrainer`, with its own collator.

It packs by flattening the rows of a micro-batch into one, in which positions restart at each document. The rows are the
token file's, so that it trains on the same.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional

import datasets
import trl

from tunemark_trainers.row_lists import make_tokenizer, strip_row
from tunemark_trainers.transformers_trainer import find_own_rate, make_arguments, make_trainer
from tunemark_worker.contract import Assignment
from tunemark_worker.row_packing import WIDTH_MULTIPLE
from tunemark_worker.trainer_session import TrainerSession


class TrlTrainer:
    """`SFTTrainer` on the run's model."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        wants = assignment.trainer_options.get("padding_free", "false")
        if wants not in ("true", "false"):
            raise ValueError("padding_free is true or false, not {!r}".format(wants))
        self._is_flat = wants == "true" or assignment.batching == "pack"
        self._own: Optional[Dict[str, Any]] = None

    def facts(self) -> Mapping[str, Any]:
        flat = {"padding": "the rows of a micro-batch are flattened into one, without padding"}
        return {"version": trl.__version__, "differs": flat if self._is_flat else {}}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        session.watch(session.module)
        # The multiple to which the longest row of a micro-batch is padded.
        multiple = WIDTH_MULTIPLE if a.batching == "bucket" else a.sequence
        arguments = make_arguments(
            session,
            trl.SFTConfig,
            padding_free=self._is_flat,
            packing=False,
            # The rows have their length already.
            max_length=None,
            pad_to_multiple_of=None if self._is_flat else multiple,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        rows = RowStream(session)
        stream = datasets.IterableDataset.from_generator(rows.take)
        tokenizer = make_tokenizer(a.token_file.pad_id)
        trainer = make_trainer(trl.SFTTrainer, session, arguments, train_dataset=stream, processing_class=tokenizer)
        rows.is_begun = True
        trainer.train()
        self._own = find_own_rate(trainer.state.log_history)

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        return self._own


class RowStream:
    """The rows of the session without their padding. Until it is begun, only its first row is looked at."""

    def __init__(self, session: TrainerSession) -> None:
        self._session = session
        self.is_begun = False

    def take(self) -> Iterator[Dict[str, List[int]]]:
        if not self.is_begun:
            yield {"input_ids": [0, 0], "labels": [0, 0], "seq_lengths": [2]}
            return
        for batch in self._session.micro_batches():
            for r in range(batch.input_ids.shape[0]):
                yield strip_row(batch, r)

    def __reduce__(self) -> Any:
        # What identifies a data set by its content; this one is made once.
        return (str, ("rows of a session",))
