"""What launchers and loggers put before a line is taken off, and nothing else."""

from __future__ import annotations

import pytest

from tunemark_importers.line_prefixes import Prefix, strip_prefixes

WORDS = "[Step 1/144] | Loss: 1.5"
# 2024-04-22 00:52:30 UTC: 19,835 days and 3,150 seconds after 1970.
AT = 19835 * 86400 + 3150


@pytest.mark.parametrize(
    ("before", "stamp_s"),
    [
        ("2024-04-22 00:52:30.848 | INFO     | __main__:main:149 - ", AT + 0.848),
        ("[2024-04-22 00:52:30.848] [info] ", AT + 0.848),
        ("2024-04-22 00:52:30,848 - __main__ - INFO - ", AT + 0.848),
        ("[titan] 2024-04-22 00:52:30,848 - root - INFO - ", AT + 0.848),
        ("2024-04-22T00:52:30.848123456Z stdout F ", AT + 0.848123456),
        ("2024-04-22T02:52:30+02:00 ", AT),
        ("2024-04-21 17:52:30 -0700 ", AT),
        ("2024-04-22 00:52:30 UTC ", AT),
        ("04/22/2024 00:52:30 - INFO - __main__ - ", AT),
        ("22.04.2024 00:52:30 ", AT),
        ("22/04/2024 00:52:30 ", AT),
        ("[NeMo I 2024-04-22 00:52:30 trainer:12] ", AT),
        ("[INFO|trainer.py:2134] 2024-04-22 00:52:30,000 >> ", AT),
        ("[2024-04-22 00:52:30,000] [INFO] [trainer.py:2134] ", AT),
        ("1713747150.848 ", AT + 0.848),
        ("[20240422 00:52:30][rank-7/8][INFO ] [-------trainer.py:1321] :  ", AT),
        ("[2024-04-22-005230][I][sft/train.py:272] ", AT),
    ],
)
def test_a_date_becomes_seconds_since_1970(before: str, stamp_s: float) -> None:
    found = strip_prefixes(before + WORDS)
    assert (found.text, found.is_dated) == (WORDS, True)
    assert found.stamp_s == pytest.approx(stamp_s, abs=1e-5)


@pytest.mark.parametrize(
    ("none", "one"),
    [
        ("2024-19-39 00:52:30 | INFO | ", "2024-04-22 00:52:30 | INFO | "),
        ("[2024-02-31 00:52:30] ", "[2024-04-22 00:52:30] "),
        ("Apr 39 00:52:30 ", "Apr 22 00:52:30 "),
    ],
)
def test_a_line_without_a_date_says_nothing_of_the_next(none: str, one: str) -> None:
    words = f"a form of its own {none[:1]} {WORDS}"
    assert strip_prefixes(none + words).stamp_s is None
    found = strip_prefixes(one + words)
    assert (found.text, found.is_dated) == (words, True)


@pytest.mark.parametrize("before", ["00:52:30 ", "[00:52:30] ", "00:52:30 | INFO | "])
def test_a_time_of_day_is_no_date(before: str) -> None:
    assert strip_prefixes(before + WORDS) == Prefix(WORDS, None, 3150.0, False)


@pytest.mark.parametrize("before", ["", "| INFO     | __main__:main:131 - ", "|INFO     | ", "INFO:root:", "info] "])
def test_a_level_alone_has_no_stamp(before: str) -> None:
    assert strip_prefixes(before + WORDS) == Prefix(WORDS)


@pytest.mark.parametrize(
    ("before", "rank"),
    [
        ("[rank0]:", "0"),
        ("[default3]:", "3"),
        ("[12]: ", "12"),
        ("[12]:", "12"),
        (" 7: ", "7"),
        ("[1,5]<stdout>:", "1,5"),
        ("0: [default3]: ", "0/3"),
        ("(RayTrainWorker pid=123, ip=10.0.0.1) ", "RayTrainWorker pid=123, ip=10.0.0.1"),
        ("worker-3: ", "worker-3"),
        ("[rank2]: [2024-04-22 00:52:30] ", "2"),
    ],
)
def test_the_label_of_a_rank_is_told(before: str, rank: str) -> None:
    found = strip_prefixes(before + WORDS)
    assert (found.text, found.rank) == (WORDS, rank)


@pytest.mark.parametrize(
    "words", ["step:  1  loss: 2", "{'loss': 1.5}", "iteration 1/ 2 |", "Step 3 | loss:1", "[1/4] Connecting"]
)
def test_a_lines_own_words_are_left_alone(words: str) -> None:
    assert strip_prefixes(words).text == words


@pytest.mark.parametrize("before", ["2024-13-22 00:52:30 ", "2023-02-29 00:52:30 ", "2024-04-22 00:72:30 "])
def test_what_is_no_date_is_no_stamp(before: str) -> None:
    assert strip_prefixes(before + WORDS).stamp_s is None
