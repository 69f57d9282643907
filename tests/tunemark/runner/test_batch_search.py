"""The search for the largest micro-batch, against machines of known memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tunemark.runner.batch_search import BatchSearch


def _search(
    held: Callable[[int], float],
    limit: float,
    candidates: Sequence[int],
    guess: int,
    *,
    each: float | None = None,
    is_limit_known: bool = True,
) -> tuple[int, list[int]]:
    """(the largest that fits, what was tried in order) on a machine where a size holds so many bytes."""
    known = int(limit) if is_limit_known else None
    search = BatchSearch(candidates=candidates, limit_bytes=known, guess=guess, bytes_each=each)
    tried = []
    while (at := search.choose_next()) is not None:
        size = candidates[at]
        assert size not in tried, "nothing is tried twice"
        tried.append(size)
        search.record(at, held(size) <= limit, held(size))
    return (candidates[search.largest] if search.largest >= 0 else 0), tried


@pytest.mark.parametrize("guess", [0, 3, 40, 400, 4095])
@pytest.mark.parametrize("largest", [0, 1, 7, 37, 1000, 4096])
def test_the_border_is_found_exactly_whatever_was_predicted(largest: int, guess: int) -> None:
    candidates = range(1, 4097)
    found, tried = _search(lambda size: 500.0 + 10 * size, 500.0 + 10 * largest + 5, candidates, guess)
    assert found == largest
    assert len(tried) <= 14


def test_a_good_prediction_takes_two_probes_and_a_line_few_more() -> None:
    assert _search(lambda size: 100.0 + size, 137.5, range(1, 4097), 36, each=1.0) == (37, [37, 38])
    # What the first one held, and as much more for each as predicted.
    assert _search(lambda size: 100.0 + size, 1100.5, range(1, 4097), 36, each=1.0) == (1000, [37, 1000, 1001])
    # Without a prediction two that fit are a line.
    assert _search(lambda size: 100.0 + size, 1100.5, range(1, 4097), 36) == (1000, [37, 74, 1000, 1001])


def test_without_a_known_limit_only_failures_show_the_border() -> None:
    found, tried = _search(lambda size: float(size), 21, range(1, 4097), 0, is_limit_known=False)
    assert found == 21
    assert tried[:6] == [1, 2, 4, 8, 16, 32]


def test_steps_in_memory_and_divisors_of_a_batch() -> None:
    def held(size: int) -> float:
        # An allocator that takes memory in large pieces.
        return 64.0 * -(-size * 10 // 64)

    assert _search(held, 640, range(1, 4097), 10)[0] == 64
    assert _search(lambda size: float(size), 13, (1, 2, 3, 4, 6, 8, 12, 24), 7)[0] == 12
