"""Which documents form which row, and which rows form which micro-batch: pure functions of seed, lengths and layout.

A row is one sequence of a batch. Rows are numbered over the whole job, and step k takes rows k*G to (k+1)*G with G the
global batch, so every layout of ranks and every gradient accumulation trains on the same samples.
"""

from __future__ import annotations

import bisect
import hashlib
import random
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from tunemark_worker.contract import Assignment

# Rows that packing keeps open at once. Best fit with 64 wastes under 2 % of the slots on lengths like alpaca's; more
# would only delay short documents.
OPEN_ROWS = 64


class DocumentPrefix(NamedTuple):
    """The first `length` tokens of a document."""

    document: int
    length: int


BatchRow = List[DocumentPrefix]


def shuffle_documents(seed: int, documents: int, epoch: int) -> List[int]:
    """The order of the documents in an epoch, identical in every process and every version of Python."""
    numbers = list(range(documents))
    random.Random("{}/{}".format(seed, epoch)).shuffle(numbers)
    return numbers


def make_batch_rows(
    lengths: Sequence[int], sequence: int, batching: str, seed: int, epochs: Optional[int]
) -> Iterator[Tuple[int, BatchRow]]:
    """(epoch, row), endless if `epochs` is None. Documents are truncated to `sequence` tokens; empty ones are skipped.

    pad: a row is one document. pack: a row holds as many documents as fit; none is split over rows.
    """
    if batching not in ("pad", "pack"):
        raise ValueError("batching is 'pad' or 'pack', not {!r}".format(batching))
    if not any(lengths):
        raise ValueError("no document has any tokens")
    epoch = 0
    while epochs is None or epoch < epochs:
        parts = (
            DocumentPrefix(document, min(lengths[document], sequence))
            for document in shuffle_documents(seed, len(lengths), epoch)
            if lengths[document]
        )
        for row in ([part] for part in parts) if batching == "pad" else _pack(parts, sequence):
            yield epoch, row
        epoch += 1


def select_held_out(lengths: Sequence[int], count: int) -> List[int]:
    """The `count` documents held out of training, of those with two tokens or more; the same for every seed. ValueError
    if that would leave none for training."""
    usable = [number for number, length in enumerate(lengths) if length > 1]
    if count >= len(usable) and count:
        raise ValueError("{} documents cannot be held out: {} have two tokens or more".format(count, len(usable)))
    random.Random("held out").shuffle(usable)
    return sorted(usable[:count])


def training_lengths(lengths: Sequence[int], held: int) -> List[int]:
    """Lengths of the documents, 0 for held-out ones, which `rows` then skips."""
    kept = list(lengths)
    for document in select_held_out(lengths, held):
        kept[document] = 0
    return kept


def held_out_lengths(lengths: Sequence[int], held: int) -> List[int]:
    """Lengths of the held-out documents, 0 for all others."""
    chosen = set(select_held_out(lengths, held))
    return [length if document in chosen else 0 for document, length in enumerate(lengths)]


def micro_batch_rows(
    micro: int, data_rank: int, *, micro_batch: int, data_ranks: int, global_batch: int
) -> Tuple[int, int]:
    """(first, end) of the rows of one micro-batch on one data rank, within its step; end is exclusive."""
    first = micro * micro_batch * data_ranks + data_rank * micro_batch
    assert first + micro_batch <= global_batch, "the layout does not fit the global batch"
    return first, first + micro_batch


def hash_row(ids: bytes) -> str:
    """A hash of a row's content: its ids as native-endian int32 without padding."""
    return hashlib.blake2b(ids, digest_size=8).hexdigest()


def _pack(parts: Iterator[DocumentPrefix], sequence: int) -> Iterator[BatchRow]:
    """Best fit: a document goes to the open row in which it leaves the least space; a full row is emitted at once.
    If none has space and OPEN_ROWS are open, the fullest is emitted. Ties go to the older row."""
    # (space left, number, row), sorted by space and then age, so that the best fit is found by bisection: every rank,
    # and the parent's recount, pack the rows of the whole job.
    open_rows: List[Tuple[int, int, BatchRow]] = []
    for number, part in enumerate(parts):
        at = bisect.bisect_left(open_rows, (part.length, -1, []))
        if at < len(open_rows):
            space, born, row = open_rows.pop(at)
        else:
            if len(open_rows) == OPEN_ROWS:
                yield open_rows.pop(0)[2]
            space, born, row = sequence, number, []
        row.append(part)
        if space > part.length:
            bisect.insort(open_rows, (space - part.length, born, row))
        else:
            yield row
    for _, _, row in sorted(open_rows, key=lambda each: each[1]):
        yield row


def make_step_rows(a: Assignment, lengths: List[int], data_rank: int) -> Iterator[List[List[BatchRow]]]:
    """The rows of each step on one data rank, one list per micro-batch. Rows at the end of the last epoch that do not
    fill a global batch are dropped."""
    pending: List[BatchRow] = []
    for _, row in make_batch_rows(lengths, a.sequence, a.batching, a.seed, a.epochs):
        pending.append(row)
        if len(pending) == a.global_batch:
            sizes = {"micro_batch": a.micro_batch, "data_ranks": a.data_ranks, "global_batch": a.global_batch}
            spans = [micro_batch_rows(m, data_rank, **sizes) for m in range(a.gradient_accumulation)]
            yield [pending[first:last] for first, last in spans]
            pending = []


def schedule_steps(a: Assignment, lengths: List[int]) -> Optional[int]:
    """Steps of the learning-rate schedule; None if unknown. A warm-up whose length is found by statistics is not
    included: the last steps of such a run keep the schedule's final learning rate."""
    steps = None if a.steps is None else a.steps + (a.warmup or 0)
    if a.epochs is not None:
        rows = sum(1 for _ in make_batch_rows(lengths, a.sequence, a.batching, a.seed, a.epochs))
        steps = rows // a.global_batch if steps is None else min(steps, rows // a.global_batch)
    return steps
