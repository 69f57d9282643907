"""In the worker: rows as lists of token ids without their padding, for trainers whose own collators pad them."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List

import torch
import transformers
from tokenizers import Tokenizer, models

from tunemark_worker.batches import Batch
from tunemark_worker.trainer_session import TrainerSession


class RowLists(torch.utils.data.IterableDataset):  # type: ignore[type-arg]  # it takes none in Python 3.8
    """The rows of the session's micro-batches, one at a time. make_row: makes one of a micro-batch and its number."""

    def __init__(self, session: TrainerSession, make_row: Callable[[Batch, int], Dict[str, List[int]]]) -> None:
        self._session, self._make_row = session, make_row

    def __iter__(self) -> Iterator[Dict[str, List[int]]]:
        for batch in self._session.micro_batches():
            for r in range(batch.input_ids.shape[0]):
                yield self._make_row(batch, r)


def mask_row(batch: Batch, row: int) -> Dict[str, List[int]]:
    """A row's ids and labels without padding, and a mask of ones."""
    found = strip_row(batch, row)
    return {"input_ids": found["input_ids"], "labels": found["labels"], "attention_mask": [1] * len(found["labels"])}


def number_documents(batch: Batch, row: int) -> Dict[str, List[int]]:
    """A whole row, whose mask has the number of each position's document, from 1, and 0 for padding."""
    return {**restart_positions(batch, row), "attention_mask": (batch.document_ids[row] + 1).tolist()}


def restart_positions(batch: Batch, row: int) -> Dict[str, List[int]]:
    """A whole row, whose positions restart at each document."""
    named = {"input_ids": batch.input_ids, "labels": batch.labels, "position_ids": batch.positions}
    return {name: tensor[row].tolist() for name, tensor in named.items()}


def strip_row(batch: Batch, row: int) -> Dict[str, List[int]]:
    """A row's ids, labels and the lengths of its documents."""
    documents = batch.document_ids[row]
    length = int((documents >= 0).sum())
    lengths = documents[:length].bincount().tolist()
    ids, labels = (tensor[row, :length].tolist() for tensor in (batch.input_ids, batch.labels))
    return {"input_ids": ids, "labels": labels, "seq_lengths": lengths}


def make_tokenizer(pad_id: int) -> Any:
    """A tokenizer that knows how rows are padded, and nothing else: the rows are ids."""
    words = Tokenizer(models.WordLevel({"<pad>": pad_id, "<unk>": pad_id + 1}, unk_token="<unk>"))
    kind: Any = transformers.PreTrainedTokenizerFast
    return kind(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
