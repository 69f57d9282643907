"""The token file as tensors, and micro-batches cut from it. What a batch holds is counted from the batch itself."""

from __future__ import annotations

import json
import mmap
import os
from typing import List, NamedTuple, Sequence

import torch

from tunemark_worker.contract import HEADER_BYTES, IGNORED_LABEL, SCHEMA, TokenFile, token_layout
from tunemark_worker.documents import Part, digest


class Batch(NamedTuple):
    """One micro-batch. All tensors are int64 [micro_batch, sequence]; padding is on the right.

    labels: aligned with input_ids, -100 in padding, where no loss is wanted and at each document's first token, which
    nothing predicts. document_ids: counted within the row, -1 in padding. positions: restart at each document.
    packed: rows can hold more than one document, so attention must be kept within each.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    document_ids: torch.Tensor
    positions: torch.Tensor
    packed: bool

    def to(self, device: str) -> Batch:
        tensors = [tensor.to(device, non_blocking=True) for tensor in self[:4]]
        return Batch(tensors[0], tensors[1], tensors[2], tensors[3], self.packed)


class Counts(NamedTuple):
    """Tokens of some batches. slots: micro_batch x sequence. content: not padding. trained: with a label."""

    slots: int
    content: int
    trained: int


def count(batches: Sequence[Batch]) -> Counts:
    """Count batches that lie on the host."""
    return Counts(
        slots=sum(b.input_ids.numel() for b in batches),
        content=sum(int((b.document_ids >= 0).sum()) for b in batches),
        trained=sum(targets(b) for b in batches),
    )


def digests(batch: Batch) -> List[str]:
    """A short name of each row's content, by which two ranks can be seen to train on the same sample or not."""
    rows = zip(batch.input_ids, batch.document_ids)
    return [digest(ids[documents >= 0].to(torch.int32).numpy().tobytes()) for ids, documents in rows]


def targets(batch: Batch) -> int:
    """Tokens that the loss is taken of: each label but the first of a row, which has no predecessor."""
    return int((batch.labels[:, 1:] != IGNORED_LABEL).sum())


class Tokens:
    """The token file, mapped. Raises ValueError where the file is not what the assignment says."""

    def __init__(self, file: TokenFile) -> None:
        layout = token_layout(file.documents, file.tokens)
        found = os.path.getsize(file.path)
        if found != layout.end:
            raise ValueError("{} has {} bytes, {} were announced".format(file.path, found, layout.end))
        with open(file.path, "rb") as opened:
            # Copy on write, because torch.frombuffer warns of memory that it may not write to; nothing writes.
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
        """Tokens of each document."""
        return [end - begin for begin, end in zip(self._offsets, self._offsets[1:])]

    def batch(self, rows: Sequence[Sequence[Part]], sequence: int, packed: bool) -> Batch:
        """The micro-batch of these rows."""
        shape = (len(rows), sequence)
        input_ids = torch.full(shape, self._pad_id, dtype=torch.int64)
        labels = torch.full(shape, IGNORED_LABEL, dtype=torch.int64)
        document_ids = torch.full(shape, -1, dtype=torch.int64)
        positions = torch.zeros(shape, dtype=torch.int64)
        for r, row in enumerate(rows):
            at = 0
            for d, (document, length) in enumerate(row):
                begin = self._offsets[document]
                here = slice(at, at + length)
                ids = self._ids[begin : begin + length].to(torch.int64)
                wanted = self._trained[begin : begin + length].to(torch.bool)
                input_ids[r, here] = ids
                labels[r, here] = torch.where(wanted, ids, torch.full_like(ids, IGNORED_LABEL))
                labels[r, at] = IGNORED_LABEL
                document_ids[r, here] = d
                positions[r, here] = torch.arange(length)
                at += length
        return Batch(input_ids, labels, document_ids, positions, packed)
