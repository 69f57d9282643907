"""Count the tokens of some steps from the token file's documents alone, to check the worker's counts independently.

It shares only the order of documents with the worker (`row_packing`): no batch is formed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunemark.results.measurement import JobTokens
from tunemark_worker import row_packing
from tunemark_worker.contract import Assignment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDocuments:
    """offsets: where documents begin, [documents + 1]. trained: a byte per token, 1 if it is trained on. ids: int32 of
    all tokens; None if not available."""

    offsets: Sequence[int]
    trained: bytes | memoryview
    ids: npt.NDArray[np.int32] | None = None


def recount_tokens(found: TokenDocuments, assignment: Assignment, first: int, last: int) -> JobTokens:
    """The whole job's tokens of steps first to last - 1."""
    a = assignment
    lengths = row_packing.training_lengths(
        [end - begin for begin, end in itertools.pairwise(found.offsets)], a.evaluate
    )
    rows = row_packing.make_assigned_rows(a, lengths)
    # A document has the same prefix in every epoch. The mask may be larger than memory: only what rows hold is read.
    mask, trained_of = memoryview(found.trained), dict[int, int]()
    slots = content = trained = 0
    micro_batch: list[row_packing.BatchRow] = []
    for _, row in itertools.islice(rows, first * a.global_batch, last * a.global_batch):
        # The rows of a micro-batch follow each other, on whichever data rank it is.
        micro_batch.append(row)
        if len(micro_batch) == a.micro_batch:
            slots += len(micro_batch) * row_packing.micro_batch_width(micro_batch, a.sequence, a.batching)
            micro_batch = []
        for document, length in row:
            content += length
            known = trained_of.get(document)
            if known is None:
                begin = found.offsets[document]
                # A document's first token is not predicted.
                known = trained_of[document] = bytes(mask[begin + 1 : begin + length]).count(1)
            trained += known
    return JobTokens(slots, content, trained)


def sample_digests(found: TokenDocuments, assignment: Assignment, step: int) -> list[str]:
    """The digests of the rows that a step has to train on."""
    a, ids = assignment, found.ids
    assert ids is not None, "called only with ids"
    lengths = row_packing.training_lengths(
        [end - begin for begin, end in itertools.pairwise(found.offsets)], a.evaluate
    )
    rows = row_packing.make_assigned_rows(a, lengths)
    parts = [
        [ids[found.offsets[d] : found.offsets[d] + length].tobytes() for d, length in row]
        for _, row in itertools.islice(rows, step * a.global_batch, (step + 1) * a.global_batch)
    ]
    return [row_packing.hash_row(b"".join(row)) for row in parts]
