"""Loads results from where they are: a store, one run's folder in a store, or a report's folder, in any schema.

A store's results are derived from their records and judged on loading; a report's are as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunemark.errors import BadStore, TunemarkError
from tunemark.plugin import Finding
from tunemark.results import ImportedClaim, Result, Store, read_stored_claims
from tunemark.results.mfu import share_measured_peaks
from tunemark.results.report_seal import check_report
from tunemark.results.result import SCHEMA, decode_result
from tunemark.results.row_consistency import check_row
from tunemark.results.seal import SealState
from tunemark.results.store import is_store, make_number_failure
from tunemark.results.stored_file import read_stored_file, refuse_endless_numbers
from tunemark.results.studies import Study, read_studies
from tunemark.results.trace import MAX_WINDOWS, Trace, read_traces
from tunemark.results.verdict import add_findings

RESULTS_FILE = "runs.jsonl"
# Bytes: a run of a million windows has a line of a megabyte.
_LONGEST_ROW = 2**24
# Runs that have an entry of their own in a report; only their raw steps are read from a store.
MAX_DETAILS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadEntry:
    """An entry among the runs that could not be read, and why."""

    place: str
    why: str


@dataclass(kw_only=True, slots=True)
class LoadedRuns:
    """The contents of some folders, each run once."""

    results: list[Result] = field(default_factory=list)
    imported: list[ImportedClaim] = field(default_factory=list)
    traces: dict[str, list[Trace]] = field(default_factory=dict)
    unread: list[UnreadEntry] = field(default_factory=list)
    studies: list[Study] = field(default_factory=list)


def load_results(
    folder: Path,
    judge: Callable[[Result], Result],
    *,
    every_series: bool = False,
    unread: Callable[[TunemarkError], None] | None = None,
) -> list[Result]:
    """The results of a folder, oldest first, or none. every_series: include series from before a run was repeated.

    judge: gives the derived results of a store their verdicts. unread: called for each entry that cannot be read, which
    is then skipped; without it the first raises `BadStore`.
    """
    if is_report_folder(folder):
        return load_report(folder, unread)
    run = folder.absolute().name if is_run_folder(folder) else None
    store = Store(find_store_folder(folder))
    judged = []
    for result in store.results(every_series=every_series, folder=run, broken=unread):
        try:
            judged.append(judge(result))
        except ArithmeticError as error:
            failure = make_number_failure(folder / result.run_id, error)
            if unread is None:
                raise failure from error
            unread(failure)
    return share_measured_peaks(judged)


def load_report(folder: Path, unread: Callable[[TunemarkError], None] | None = None) -> list[Result]:
    """The results of a report's folder. unread: called for each line that is no result; without it the first raises."""
    return load_result_file(folder / RESULTS_FILE, unread)


def load_result_file(path: Path, unread: Callable[[TunemarkError], None] | None = None) -> list[Result]:
    """The results of a report's runs.jsonl, of a copy of it, or of what `run --json` printed. A copy has no seal."""
    state, problems = check_report(path.parent) if path.name == RESULTS_FILE else ("unsealed", ())
    again = "write it again with `tunemark report STORE -o DIR`"
    try:
        lines = read_stored_file(path).decode(errors="replace").splitlines()
    except OSError as error:
        raise BadStore(what=f"cannot read {path}", why=str(error), next=again) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_check_read(decode_any_schema(line), state, problems))
        except ValueError as error:
            failure = BadStore(what=f"{path}, line {number} is not a result", why=str(error), next=again)
            if unread is None:
                raise failure from error
            unread(failure)
    return found


def _check_read(result: Result, state: SealState, problems: Sequence[str]) -> Result:
    """A report's result with what its figures and its list of files say of it."""
    found = check_row(result)
    if state == "touched":
        message = f"the report is not what was written: {'; '.join(problems)}"
        found.append(Finding(rule="touched", severity="invalid", message=message))
        result = msgspec.structs.replace(result, seal="touched")
    return add_findings(result, found)


def is_result_file(path: Path) -> bool:
    """Whether a file begins with a line of a report's runs.jsonl."""
    try:
        with open(path, "rb") as file:
            first = file.readline(_LONGEST_ROW)
        row = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and {"run_id", "verdict", "interval_s", "device"} <= row.keys()


def is_report_folder(folder: Path) -> bool:
    return (folder / RESULTS_FILE).is_file() and not is_store(folder)


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is that of one run in a store."""
    return not is_report_folder(folder) and any(folder.glob("*/attempt.json"))


def find_store_folder(folder: Path) -> Path:
    """The store that a run's folder is in, or the folder itself."""
    return folder.absolute().parent if is_run_folder(folder) else folder


def load_runs(folders: Sequence[Path], judge: Callable[[Result], Result]) -> LoadedRuns:
    """Load the runs, claims and raw steps of stores and of reports. Raises `BadStore` for a path that is no folder."""
    found = LoadedRuns()
    for folder in folders:
        if not folder.is_dir():
            raise BadStore(
                what=f"there is no folder {folder}",
                next="give the folder of `tunemark run --store` (by default runs) or of its -o",
            )
        broken: list[TunemarkError] = []
        found.results = remove_duplicates([*found.results, *load_results(folder, judge, unread=broken.append)])
        try:
            found.imported += [row for row in read_stored_claims(folder) if row not in found.imported]
            found.studies += [study for study in read_studies(folder) if study not in found.studies]
        except BadStore as error:
            broken.append(error)
        for each in broken:
            place = each.what.replace(f"{folder}/", "").removesuffix(" is not a result")
            found.unread.append(UnreadEntry(place=place, why=each.why))
    found.results = share_measured_peaks(found.results)
    found.traces = load_traces(folders, found.results)
    return found


def load_traces(
    folders: Sequence[Path], results: Sequence[Result], most_windows: int = MAX_WINDOWS
) -> dict[str, list[Trace]]:
    """The raw steps of results, by run_id, where these stores and reports have them.

    most_windows: of each attempt in a store; a report keeps a limited number already.
    """
    found: dict[str, list[Trace]] = {}
    for folder in folders:
        kept, store = read_traces(folder), Store(find_store_folder(folder))
        for number, r in enumerate(results):
            steps = [trace for trace in kept if trace.run_id == r.run_id]
            if not steps and number < MAX_DETAILS:
                steps = store.traces(r, most_windows)
            known = found.setdefault(r.run_id, [])
            known += [trace for trace in steps if trace not in known]
    return found


def remove_duplicates(results: Sequence[Result]) -> list[Result]:
    """The results without duplicates, which are equal, or of the same attempts in several folders."""
    kept: list[Result] = []
    by_run: dict[str, list[Result]] = {}
    for result in results:
        known = by_run.setdefault(result.run_id, [])
        if not any(_is_same_run(result, other) for other in known):
            known.append(result)
            kept.append(result)
    return kept


def _is_same_run(one: Result, other: Result) -> bool:
    names = [row.name for row in one.each_attempt]
    return one == other or (bool(names) and names == [row.name for row in other.each_attempt])


def decode_any_schema(line: str) -> Result:
    """Decode one line of any schema. Raises ValueError if it lacks the fields that identify a run.

    From another schema, fields of the same name are kept, other fields are dropped and missing ones are unknown. A
    finding reports this and makes the verdict unknown, because a name may have another meaning there.
    """
    refuse_endless_numbers(line)
    try:
        return decode_result(line)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raw = _decode_any(line)
        if not isinstance(raw, dict) or "run_id" not in raw:
            raise ValueError("it is no result: it has no run_id") from error
        if raw.get("schema") == SCHEMA and isinstance(error, msgspec.ValidationError) and not _has_other_fields(raw):
            raise
    known = {f.name: f for f in msgspec.structs.fields(Result)}
    unknown = [name for name in raw if name not in known]
    missing = [name for name in known if name not in raw]
    values = {name: value for name, value in raw.items() if name in known}
    values.update({name: _UNKNOWN.get(name) for name in missing if known[name].required})
    values["schema"] = SCHEMA
    try:
        result = msgspec.convert(values, Result)
    except msgspec.ValidationError as error:
        lacking = f"; it lacks {', '.join(missing)}" if missing else ""
        raise ValueError(f"of schema {raw.get('schema')}, this version reads {SCHEMA}: {error}{lacking}") from error
    message = f"written by schema {raw.get('schema')}, read as {SCHEMA}"
    message += f"; unknown to this version and left out: {', '.join(unknown)}" if unknown else ""
    message += f"; missing and taken as unknown: {', '.join(missing)}" if missing else ""
    finding = Finding(rule="other-schema", severity="unknown", message=message)
    return add_findings(result, [finding])


def _decode_any(line: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


# Values for "unknown" of fields that cannot be null.
_UNKNOWN: Mapping[str, Any] = {"findings": [], "each_attempt": [], "setup_s": {}, "environment": {}, "data_sha256": ""}


def _has_other_fields(raw: Mapping[str, Any]) -> bool:
    """Whether a line's fields are not those of a result."""
    return set(raw) != set(Result.__struct_fields__)
