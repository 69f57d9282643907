"""Rows of documents, against small cases worked by hand."""

import pytest

from tunemark_worker.row_packing import OPEN_ROWS, make_batch_rows, micro_batch_rows, shuffle_documents

LENGTHS = [7, 3, 5, 1, 9, 2, 4, 6, 30, 8] * 20


def _row_list(batching, seed=0, epochs=1, lengths=LENGTHS, sequence=16):
    return list(make_batch_rows(lengths, sequence, batching, seed, epochs))


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    assert sorted(shuffle_documents(1, 50, 0)) == list(range(50))
    assert shuffle_documents(1, 50, 0) == shuffle_documents(1, 50, 0)
    assert len({tuple(shuffle_documents(s, 50, e)) for s in (1, 2) for e in (0, 1)}) == 4


@pytest.mark.parametrize("batching", ["pad", "pack"])
def test_each_epoch_holds_each_document_once_and_whole(batching):
    found = _row_list(batching, epochs=2)
    assert found == _row_list(batching, epochs=2)
    for epoch in (0, 1):
        parts = [part for e, row in found if e == epoch for part in row]
        assert sorted(part.document for part in parts) == list(range(len(LENGTHS)))
        assert all(part.length == min(LENGTHS[part.document], 16) for part in parts)


def test_padded_rows_hold_one_document():
    assert all(len(row) == 1 for _, row in _row_list("pad"))


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
