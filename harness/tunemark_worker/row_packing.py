"""Which documents form which row, and which rows form which micro-batch: pure functions of seed, lengths and layout.

A row is one sequence of a batch. Rows are numbered over the whole job, and step k takes rows k*G to (k+1)*G with G the
global batch, so every layout of ranks and every gradient accumulation trains on the same samples.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from tunemark_worker.contract import Assignment

# Rows that packing keeps open at once. Best fit with 64 wastes under 2 % of the slots on lengths like alpaca's; more
# would only delay short documents.
OPEN_ROWS = 64
# Global batches among which `bucket` sorts documents by length, as transformers does with `group_by_length`: more would
# save little padding and make epochs less random.
BUCKET_BATCHES = 50
# `bucket` makes micro-batches a multiple of this many tokens wide, the usual `pad_to_multiple_of`: matrix units take
# 8 values at a time in 16 bits.
WIDTH_MULTIPLE = 8


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
    lengths: Sequence[int], sequence: int, batching: str, seed: int, epochs: Optional[int], global_batch: int = 1
) -> Iterator[Tuple[int, BatchRow]]:
    """(epoch, row), endless if `epochs` is None. Documents are truncated to `sequence` tokens; empty ones are skipped.

    pad: a row is one document. pack: a row holds as many documents as fit; none is split over rows. bucket: a row is
    one document, and each `global_batch` rows are of about one length.
    """
    if batching not in ("pad", "pack", "bucket"):
        raise ValueError("batching is 'pad', 'pack' or 'bucket', not {!r}".format(batching))
    if not any(lengths):
        raise ValueError("no document has any tokens")
    numbers = itertools.count() if epochs is None else range(epochs)
    parts_of_epochs = ((epoch, _shuffle_parts(lengths, sequence, seed, epoch)) for epoch in numbers)
    if batching == "bucket":
        for batch in _bucket(parts_of_epochs, seed, global_batch):
            for epoch, part in batch:
                yield epoch, [part]
        return
    for epoch, parts in parts_of_epochs:
        for row in ([part] for part in parts) if batching == "pad" else _pack(iter(parts), sequence):
            yield epoch, row


def micro_batch_width(rows: Sequence[BatchRow], sequence: int, batching: str) -> int:
    """Slots of each row of a micro-batch: `sequence`, or with `bucket` the longest row's tokens, rounded up to a
    multiple of `WIDTH_MULTIPLE` where `sequence` allows it."""
    if batching != "bucket":
        return sequence
    longest = max(sum(part.length for part in row) for row in rows)
    return min(sequence, round_width(longest))


def round_width(tokens: int) -> int:
    """The smallest multiple of `WIDTH_MULTIPLE` that holds so many tokens."""
    return -(-tokens // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


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


def _shuffle_parts(lengths: Sequence[int], sequence: int, seed: int, epoch: int) -> List[DocumentPrefix]:
    """The documents of an epoch in their order, truncated; empty ones are left out."""
    order = shuffle_documents(seed, len(lengths), epoch)
    return [DocumentPrefix(document, min(lengths[document], sequence)) for document in order if lengths[document]]


_EpochPart = Tuple[int, DocumentPrefix]


def _bucket(
    parts_of_epochs: Iterable[Tuple[int, List[DocumentPrefix]]], seed: int, global_batch: int
) -> Iterator[List[_EpochPart]]:
    """Global batches of documents of about one length; the last one may be smaller.

    Of each BUCKET_BATCHES global batches of an epoch the documents are sorted, and the batches shuffled again, so that
    step times do not drift. Documents at the end of an epoch that do not fill a batch share one with the first of the
    next epoch: they are chosen before anything is sorted, so that no length is left out more often than another.
    """
    left: List[_EpochPart] = []
    for epoch, parts in parts_of_epochs:
        found = [(epoch, part) for part in parts]
        if left:
            missing = global_batch - len(left)
            left, found = left + found[:missing], found[missing:]
            if len(left) < global_batch:
                continue
            yield sorted(left, key=_part_length)
        whole = len(found) // global_batch * global_batch
        for first in range(0, whole, BUCKET_BATCHES * global_batch):
            near = sorted(found[first : min(first + BUCKET_BATCHES * global_batch, whole)], key=_part_length)
            batches = [near[at : at + global_batch] for at in range(0, len(near), global_batch)]
            random.Random("{}/{}/{}".format(seed, epoch, first)).shuffle(batches)
            yield from batches
        left = found[whole:]
    if left:
        yield sorted(left, key=_part_length)


def _part_length(part: _EpochPart) -> int:
    return part[1].length


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


def make_assigned_rows(a: Assignment, lengths: Sequence[int]) -> Iterator[Tuple[int, BatchRow]]:
    """The rows of a run, in the order in which the whole job trains on them."""
    return make_batch_rows(lengths, a.sequence, a.batching, a.seed, a.epochs, a.global_batch)


def make_step_rows(a: Assignment, lengths: List[int], data_rank: int) -> Iterator[List[List[BatchRow]]]:
    """The rows of each step on one data rank, one list per micro-batch. Rows at the end of the last epoch that do not
    fill a global batch are dropped."""
    pending: List[BatchRow] = []
    for _, row in make_assigned_rows(a, lengths):
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
        rows = sum(1 for _ in make_assigned_rows(a, lengths))
        steps = rows // a.global_batch if steps is None else min(steps, rows // a.global_batch)
    return steps
