"""The tokens of some steps, counted from the token file's documents alone: a witness against the worker's counts.

It shares the order of documents with the worker (`documents.rows`) and nothing else: no batch is formed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunemark.results.measurement import Counts
from tunemark_worker import documents
from tunemark_worker.contract import Assignment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """Where documents begin (one more than there are), and for each token a byte that is 1 where it is trained on. ids:
    int32 of all tokens; None where they are not at hand."""

    offsets: Sequence[int]
    trained: bytes | memoryview
    ids: npt.NDArray[np.int32] | None = None


def recount(found: Documents, assignment: Assignment, first: int, last: int) -> Counts:
    """The whole job's tokens of steps first to last - 1."""
    a = assignment
    lengths = documents.training_lengths([end - begin for begin, end in itertools.pairwise(found.offsets)], a.evaluate)
    rows = documents.rows(lengths, a.sequence, a.batching, a.seed, a.epochs)
    slots = content = trained = 0
    # Of the mask, which may be larger than memory, only what the rows hold is looked at.
    mask = memoryview(found.trained)
    for _, row in itertools.islice(rows, first * a.global_batch, last * a.global_batch):
        slots += a.sequence
        for document, length in row:
            begin = found.offsets[document]
            content += length
            # Nothing predicts a document's first token.
            trained += bytes(mask[begin + 1 : begin + length]).count(1)
    return Counts(slots, content, trained)


def samples(found: Documents, assignment: Assignment, step: int) -> list[str]:
    """The digests of the rows that a step has to train on, each once."""
    a, ids = assignment, found.ids
    assert ids is not None, "asked only where the ids are at hand"
    lengths = documents.training_lengths([end - begin for begin, end in itertools.pairwise(found.offsets)], a.evaluate)
    rows = documents.rows(lengths, a.sequence, a.batching, a.seed, a.epochs)
    parts = [
        [ids[found.offsets[d] : found.offsets[d] + length].tobytes() for d, length in row]
        for _, row in itertools.islice(rows, step * a.global_batch, (step + 1) * a.global_batch)
    ]
    return [documents.digest(b"".join(row)) for row in parts]
