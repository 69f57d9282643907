"""A sample of the campaign of faults, benchmarks/faults.py: stores, reports, inputs of strangers and bad plugins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import faults  # a program of the benchmarks
from campaign.cases import Case  # its package

_SAMPLE = faults.sample_cases(25)
_REST = [case for case in faults.load_cases().values() if case.is_cheap and case not in _SAMPLE]


def _check(case: Case, *, is_brief: bool = False) -> None:
    row = faults.inject(case, 1, seed=1, is_brief=is_brief)
    assert row.problems == ()


@pytest.mark.parametrize("case", _SAMPLE, ids=lambda case: case.name)
def test_a_fault_ends_in_a_row_or_a_clear_word(case: Case) -> None:
    _check(case, is_brief=True)


@pytest.mark.full
@pytest.mark.parametrize("case", _REST, ids=lambda case: case.name)
def test_so_do_the_other_cheap_ones(case: Case) -> None:
    _check(case)
