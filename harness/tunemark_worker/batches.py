"""Micro-batches from the memory-mapped token file, and token counts taken from the batches themselves."""

from __future__ import annotations

import json
import mmap
import os
from typing import List, NamedTuple, Sequence, Tuple

import torch

from tunemark_worker.contract import HEADER_BYTES, IGNORED_LABEL, SCHEMA, Assignment, TokenFile, token_file_offsets
from tunemark_worker.row_packing import BatchRow, hash_row, micro_batch_width


class Batch(NamedTuple):
    """One micro-batch. All tensors are int64 [micro_batch, width]; padding is on the right.

    width: the run's sequence, or less where `--batching bucket` groups documents of about one length.

    labels: aligned with input_ids (not shifted); -100 in padding, where no loss is wanted, and at each document's first
    token, which nothing predicts. document_ids: index of the document within the row, -1 in padding. positions: restart
    at each document. packed: a row can hold several documents, and attention must not cross their borders.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    document_ids: torch.Tensor
    positions: torch.Tensor
    packed: bool

    def to(self, device: str) -> Batch:
        tensors = [tensor.to(device, non_blocking=True) for tensor in self[:4]]
        return Batch(tensors[0], tensors[1], tensors[2], tensors[3], self.packed)


class TokenCounts(NamedTuple):
    """Tokens of some batches. slots: micro_batch x width each. content: without padding. trained: with a loss."""

    slots: int
    content: int
    trained: int


def count_tokens(batches: Sequence[Batch]) -> TokenCounts:
    """Count the tokens of batches that are still in host memory."""
    return TokenCounts(
        slots=sum(b.input_ids.numel() for b in batches),
        content=sum(int((b.document_ids >= 0).sum()) for b in batches),
        trained=sum(count_targets(b) for b in batches),
    )


def hash_rows(batch: Batch) -> List[str]:
    """A hash of each row's content, which shows whether two ranks train on the same sample."""
    rows = zip(batch.input_ids, batch.document_ids)
    return [hash_row(ids[documents >= 0].to(torch.int32).numpy().tobytes()) for ids, documents in rows]


def count_targets(batch: Batch) -> int:
    """Labels that contribute to the loss: all but the first of each row, which has no predecessor."""
    return int((batch.labels[:, 1:] != IGNORED_LABEL).sum())


class MappedTokens:
    """The memory-mapped token file. Raises ValueError if the file does not match the assignment."""

    def __init__(self, file: TokenFile) -> None:
        layout = token_file_offsets(file.documents, file.tokens)
        found = os.path.getsize(file.path)
        if found != layout.end:
            raise ValueError("{} has {} bytes instead of {}".format(file.path, found, layout.end))
        with open(file.path, "rb") as opened:
            # Copy-on-write although nothing writes, because torch.frombuffer warns about read-only memory.
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        header = json.loads(self._map[:HEADER_BYTES].decode())
        for key, expected in (("schema", SCHEMA), ("documents", file.documents), ("tokens", file.tokens)):
            if header.get(key, expected) != expected:
                raise ValueError("{}: {} is {}, not {}".format(file.path, key, header[key], expected))
        self._pad_id = file.pad_id
        self._ids = torch.frombuffer(self._map, dtype=torch.int32, count=file.tokens, offset=layout.ids)
        self._trained = torch.frombuffer(self._map, dtype=torch.uint8, count=file.tokens, offset=layout.trained)
        offsets = torch.frombuffer(self._map, dtype=torch.int64, count=file.documents + 1, offset=layout.offsets)
        self._offsets: List[int] = offsets.tolist()
        if self._offsets[0] != 0 or self._offsets[-1] != file.tokens:
            raise ValueError("{}: offsets do not span the tokens".format(file.path))

    def lengths(self) -> List[int]:
        """Number of tokens of each document."""
        return [end - begin for begin, end in zip(self._offsets, self._offsets[1:])]

    def batch(self, rows: Sequence[BatchRow], width: int, packed: bool) -> Batch:
        """The micro-batch of these rows, each of so many slots."""
        contents = [
            [(self._ids[at : at + length], self._trained[at : at + length].to(torch.bool)) for at, length in spans]
            for spans in ([(self._offsets[document], length) for document, length in row] for row in rows)
        ]
        return make_batch(contents, width, self._pad_id, packed)

    def micro_batch(self, rows: Sequence[BatchRow], a: Assignment) -> Batch:
        """The micro-batch of these rows, as wide as the run's batching makes it."""
        return self.batch(rows, micro_batch_width(rows, a.sequence, a.batching), a.batching == "pack")


def make_batch(
    rows: Sequence[Sequence[Tuple[torch.Tensor, torch.Tensor]]], width: int, pad_id: int, packed: bool
) -> Batch:
    """A micro-batch of rows of documents, each given by its ids and whether each of them has a loss. width: slots of
    each row."""
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    labels = torch.full(shape, IGNORED_LABEL, dtype=torch.int64)
    document_ids = torch.full(shape, -1, dtype=torch.int64)
    positions = torch.zeros(shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        position = 0
        for d, (document, trained) in enumerate(row):
            ids = document.to(torch.int64)
            span = slice(position, position + len(ids))
            input_ids[r, span] = ids
            labels[r, span] = torch.where(trained, ids, torch.full_like(ids, IGNORED_LABEL))
            labels[r, position] = IGNORED_LABEL
            document_ids[r, span] = d
            positions[r, span] = torch.arange(len(ids))
            position += len(ids)
    return Batch(input_ids, labels, document_ids, positions, packed)
