"""A store's attempts: in which order, which of them count as finished, and which are no attempts yet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunemark.errors import BadStore, TunemarkError
from tunemark.loading import load_runs
from tunemark.results import Store
from tunemark.results.attempt_process import describe_own_process

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from campaign.made_store import two_plans, write_attempt  # a store as the runner writes it


def _series(store: Store) -> list[str]:
    """The names of the attempts of the newest series."""
    return [row.name for row in store.result(two_plans()[0].run_id).each_attempt]


def test_an_attempt_of_a_wrong_clock_does_not_stay_the_newest(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), two_plans()[0]
    write_attempt(store, plan, "20280101T000000-1-7", started="2028-01-01T00:00:00+00:00", series="of 2028")
    for number in (1, 2):
        started = f"2026-11-30T10:00:0{number}+00:00"
        write_attempt(store, plan, f"20261130T10000{number}-1-9", started=started, series="of today")
    assert _series(store) == ["20261130T100001-1-9", "20261130T100002-1-9"]
    (finding,) = [f for f in store.result(plan.run_id).findings if f.rule == "order"]
    assert finding.severity == "note"
    assert "attempt 1" in finding.message
    # With right clocks nothing is said of them.
    other = two_plans()[1]
    write_attempt(store, other, "attempt-1", started="2026-11-30T10:00:01+00:00")
    write_attempt(store, other, "attempt-2", started="2026-11-30T10:00:02+00:00")
    assert [f for f in store.result(other.run_id).findings if f.rule == "order"] == []


def test_attempts_whose_records_were_lost_or_touched_are_not_finished(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), two_plans()[0]
    folders = [write_attempt(store, plan, f"attempt-{number}") for number in range(3)]
    assert store.finished_attempts(plan.run_id, "f") == 3
    assert store.find_touched(plan.run_id, "f") == []
    (folders[1] / "records.0.jsonl").unlink()
    assert store.finished_attempts(plan.run_id, "f") == 2
    (touched,) = store.find_touched(plan.run_id, "f")
    assert "attempt-1: records.0.jsonl is missing" in touched


def test_a_result_is_of_the_series_that_is_asked_for(tmp_path: Path) -> None:
    """Two commands that repeat the same run: neither prints the other's result."""
    store, plan = Store(tmp_path / "runs"), two_plans()[0]
    write_attempt(store, plan, "attempt-1", series="ours")
    write_attempt(store, plan, "attempt-2", series="theirs", seconds=2.0)
    ours = store.result(plan.run_id, series="ours")
    assert [row.name for row in ours.each_attempt] == ["attempt-1"]
    assert _series(store) == ["attempt-2"]
    store.write_result(ours)
    assert [path.parent.name for path in store.root.glob("*/*/result.json")] == ["attempt-1"]


def test_another_commands_code_takes_nothing_from_what_this_one_has_finished(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), two_plans()[0]
    write_attempt(store, plan, "attempt-1", series="ours")
    write_attempt(store, plan, "attempt-2", series="theirs", fingerprint="other code")
    assert store.finished_attempts(plan.run_id, "f") == 0
    assert store.finished_attempts(plan.run_id, "f", among_own=True) == 1
    assert store.series(plan.run_id, "f", new=False, among_own=True) == "ours"


def test_an_attempt_under_way_is_not_called_killed(tmp_path: Path) -> None:
    store, plans = Store(tmp_path / "runs"), two_plans()
    write_attempt(store, plans[0], "attempt-1")
    write_attempt(store, plans[0], "attempt-2", is_ended=False, process=describe_own_process())
    folder = write_attempt(store, plans[1], "attempt-1", is_ended=False, process=describe_own_process())
    broken: list[TunemarkError] = []
    (result,) = store.results(broken=broken.append)
    assert [row.name for row in result.each_attempt] == ["attempt-1"]
    assert ["is under way" in error.what for error in broken] == [True, True]
    assert store.check_attempt(folder).problems == ("it is under way",)
    assert store.unfinished(plans[1].run_id, "f") == []
    # One whose process is gone has ended, whoever has its number now.
    gone = {**describe_own_process(), "created_s": 1.0}
    write_attempt(store, plans[1], "attempt-3", is_ended=False, process=gone)
    assert [f.name for f, _ in store.unfinished(plans[1].run_id, "f")] == ["attempt-3"]
    assert [r.run_id for r in load_runs([store.root], lambda r: r).results] == [plans[0].run_id, plans[1].run_id]


def test_a_report_and_a_store_do_not_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    write_attempt(store, two_plans()[0], "attempt-1")
    with pytest.raises(BadStore, match="is a store"):
        Store.prove_folder(store.root)
    Store.prove_folder(store.root / "report")
    attempt = next(store.root.glob("*/*/attempt.json")).parent
    for sealed in (attempt, attempt / "report", attempt.parent, attempt.parent / "a" / "b"):
        with pytest.raises(BadStore, match="which holds measurements"):
            Store.prove_folder(sealed)
    report = tmp_path / "report"
    report.mkdir()
    (report / "runs.jsonl").touch()
    with pytest.raises(BadStore, match="is the folder of a report"):
        Store(report).prove_writable()
    # Rows that lie in a store all the same, of an earlier version, are not read instead of its runs.
    (store.root / "runs.jsonl").write_text("{}\n")
    assert len(load_runs([store.root], lambda r: r).results) == 1
