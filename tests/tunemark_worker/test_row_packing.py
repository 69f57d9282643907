"""Rows of documents, against small cases worked by hand."""

import itertools
import random

import pytest

from tunemark_worker.row_packing import (
    BUCKET_BATCHES,
    OPEN_ROWS,
    make_batch_rows,
    micro_batch_rows,
    micro_batch_width,
    shuffle_documents,
)

LENGTHS = [7, 3, 5, 1, 9, 2, 4, 6, 30, 8] * 20


def _row_list(batching, seed=0, epochs=1, lengths=LENGTHS, sequence=16, global_batch=4):
    return list(make_batch_rows(lengths, sequence, batching, seed, epochs, global_batch))


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    assert sorted(shuffle_documents(1, 50, 0)) == list(range(50))
    assert shuffle_documents(1, 50, 0) == shuffle_documents(1, 50, 0)
    assert len({tuple(shuffle_documents(s, 50, e)) for s in (1, 2) for e in (0, 1)}) == 4


@pytest.mark.parametrize("batching", ["pad", "pack", "bucket"])
def test_each_epoch_holds_each_document_once_and_whole(batching):
    found = _row_list(batching, epochs=2)
    assert found == _row_list(batching, epochs=2)
    for epoch in (0, 1):
        parts = [part for e, row in found if e == epoch for part in row]
        assert sorted(part.document for part in parts) == list(range(len(LENGTHS)))
        assert all(part.length == min(LENGTHS[part.document], 16) for part in parts)


@pytest.mark.parametrize("batching", ["pad", "bucket"])
def test_padded_rows_hold_one_document(batching):
    assert all(len(row) == 1 for _, row in _row_list(batching))


def _batches_of(lengths, global_batch, seed=0, epochs=1, sequence=1 << 20):
    """The global batches of `bucket`, each as (epoch, document, length)."""
    found = _row_list("bucket", seed, epochs, lengths, sequence, global_batch)
    flat = [(epoch, *part) for epoch, (part,) in found]
    return [flat[at : at + global_batch] for at in range(0, len(flat), global_batch)]


def test_a_bucket_is_sorted_within_fifty_global_batches_of_the_shuffled_epoch():
    chance = random.Random(4)
    lengths = [chance.randint(1, 5000) for _ in range(3 * BUCKET_BATCHES * 4)]
    order, batches = shuffle_documents(7, len(lengths), 0), _batches_of(lengths, 4, seed=7)
    for first in range(0, len(lengths), BUCKET_BATCHES * 4):
        near = sorted(order[first : first + BUCKET_BATCHES * 4], key=lambda d: lengths[d])
        wanted = [near[at : at + 4] for at in range(0, len(near), 4)]
        found = [[document for _, document, _ in batch] for batch in batches[first // 4 :][:BUCKET_BATCHES]]
        # The same batches in another order, so that lengths do not rise over the steps.
        assert found != wanted
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(("documents", "global_batch"), [(30, 4), (7, 8), (3, 8), (100, 1), (8, 8), (401, 2)])
def test_global_batches_stay_whole_over_epochs(documents, global_batch):
    """Of each epoch every document once, the last ones with the first of the next epoch, and no length left out more
    often than another."""
    lengths = list(range(1, documents + 1))
    batches = _batches_of(lengths, global_batch, epochs=5)
    assert [len(batch) for batch in batches[:-1]] == [global_batch] * (len(batches) - 1)
    every = [each for batch in batches for each in batch]
    for epoch in range(5):
        assert sorted(document for e, document, _ in every if e == epoch) == list(range(documents))
    assert all(a[2] <= b[2] for batch in batches for a, b in itertools.pairwise(batch))
    # Those that fill no batch are the last of the shuffled order, not the shortest or the longest.
    unused = 5 * documents % global_batch
    if unused and unused <= documents:
        last = shuffle_documents(0, documents, 4)[-unused:]
        assert sorted(document for _, document, _ in batches[-1]) == sorted(last)


def test_a_micro_batch_is_as_wide_as_its_longest_row_in_multiples_of_eight():
    parts = [[part for _, row in _row_list("bucket", lengths=[n]) for part in row] for n in (3, 16, 9)]
    assert micro_batch_width(parts, 1024, "bucket") == 16
    assert micro_batch_width(parts[:1], 1024, "bucket") == 8
    assert micro_batch_width(parts, 12, "bucket") == 12
    assert micro_batch_width(parts, 1024, "pad") == 1024


def test_rows_do_not_depend_on_the_layout_and_pad_less_than_pad():
    chance = random.Random(1)
    lengths = [chance.randint(1, 900) for _ in range(997)]
    rows = [row for _, row in _row_list("bucket", epochs=2, lengths=lengths, sequence=512, global_batch=8)]
    content = sum(part.length for row in rows for part in row)
    slots = []
    for micro_batch in (8, 4, 2, 1):
        groups = [rows[at : at + micro_batch] for at in range(0, len(rows), micro_batch)]
        widths = [micro_batch_width(group, 512, "bucket") for group in groups]
        assert all(width == 512 or width % 8 == 0 for width in widths)
        slots.append(sum(width * len(group) for width, group in zip(widths, groups, strict=True)))
    # Smaller micro-batches never hold more padding, and even the largest far less than rows of 512.
    assert slots == sorted(slots, reverse=True)
    assert content <= slots[-1] < slots[0] < 1.05 * content
    assert 512 * len(rows) > 1.3 * content


def test_packed_rows_fit_and_are_nearly_full():
    packed = [sum(part.length for part in row) for _, row in _row_list("pack")]
    assert max(packed) <= 16
    # 7+3+5+1+9+2+4+6+16+8 = 61 tokens for ten documents, 20 times over: 1220 tokens need at least 77 rows.
    assert sum(packed) == 1220
    assert 77 <= len(packed) <= 80


def test_a_document_evicts_the_fullest_row_where_all_are_open():
    lengths = [9] * (OPEN_ROWS + 1)
    found = _row_list("pack", lengths=lengths)
    assert [len(row) for _, row in found] == [1] * (OPEN_ROWS + 1)
    assert [row[0].document for _, row in found] == shuffle_documents(0, len(lengths), 0)


def test_a_document_goes_where_it_leaves_least_space_and_ties_to_the_older_row():
    # Documents of a row of 10, in the order in which they come.
    lengths = [6, 6, 7, 4, 3, 2]
    seed = next(seed for seed in range(10_000) if shuffle_documents(seed, 6, 0) == list(range(6)))
    # 4 fits both rows of 6 and leaves none, so it goes to the first of them; 3 fills the row of 7; 2 is left for the
    # other 6.
    packed = [[part.document for part in row] for _, row in _row_list("pack", seed, lengths=lengths, sequence=10)]
    assert packed == [[0, 3], [2, 4], [1, 5]]


def test_empty_documents_are_left_out():
    assert [row for _, row in _row_list("pad", lengths=[0, 4])] == [[(1, 4)]]
    with pytest.raises(ValueError, match="no document"):
        _row_list("pad", lengths=[0])


@pytest.mark.parametrize(("micro_batch", "data_ranks"), [(1, 1), (2, 2), (4, 2), (8, 1), (1, 8)])
def test_every_layout_takes_each_row_of_a_step_once(micro_batch, data_ranks):
    spans = [
        micro_batch_rows(m, d, micro_batch=micro_batch, data_ranks=data_ranks, global_batch=8)
        for m in range(8 // micro_batch // data_ranks)
        for d in range(data_ranks)
    ]
    assert sorted(i for first, last in spans for i in range(first, last)) == list(range(8))
