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
    """Where documents begin (one more than there are), and how many trained tokens lie before each token."""

    offsets: Sequence[int]
    trained_before: Sequence[int] | npt.NDArray[np.int64]


def recount(found: Documents, assignment: Assignment, first: int, last: int) -> Counts:
    """The whole job's tokens of steps first to last - 1."""
    a = assignment
    lengths = [end - begin for begin, end in itertools.pairwise(found.offsets)]
    lengths = documents.training_lengths(lengths, a.evaluate)
    rows = documents.rows(lengths, a.sequence, a.batching, a.seed, a.epochs)
    slots = content = trained = 0
    for _, row in itertools.islice(rows, first * a.global_batch, last * a.global_batch):
        slots += a.sequence
        for document, length in row:
            begin = found.offsets[document]
            content += length
            # Nothing predicts a document's first token.
            trained += found.trained_before[begin + length] - found.trained_before[begin + 1]
    return Counts(slots, content, int(trained))
