"""Loads runs of stores and earlier reports, in this schema and others, and lists what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunemark.errors import BadStore, TunemarkError
from tunemark.plugin import Catalog, Finding
from tunemark.report.run_details import MAX_DETAILS
from tunemark.report.sections import UnreadEntry
from tunemark.results import ImportedClaim, Result, Store, read_stored_claims
from tunemark.results.result import SCHEMA, decode_result
from tunemark.results.trace import Trace, read_traces
from tunemark.results.verdict import add_findings

RUNS = "runs.jsonl"


@dataclass(kw_only=True, slots=True)
class LoadedRuns:
    """The contents of some folders, each run once."""

    results: list[Result] = field(default_factory=list)
    imported: list[ImportedClaim] = field(default_factory=list)
    traces: dict[str, list[Trace]] = field(default_factory=dict)
    unread: list[UnreadEntry] = field(default_factory=list)


def load_runs(folders: list[Path], catalog: Catalog) -> LoadedRuns:
    """Load the runs of stores and of reports. Raises `BadStore` for a path that is not a folder."""
    found = LoadedRuns()
    seen: dict[str, list[Result]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadStore(
                what=f"there is no folder {folder}",
                next="give the folder of `tunemark run --store` (by default runs) or of its -o",
            )
        is_report = (folder / RUNS).is_file()
        results = _read_report(folder, found.unread) if is_report else _read_store(folder, catalog, found.unread)
        for result in results:
            known = seen.setdefault(result.run_id, [])
            if not any(_is_same_run(result, other) for other in known):
                known.append(result)
                found.results.append(result)
        try:
            found.imported += [row for row in read_stored_claims(folder) if row not in found.imported]
        except BadStore as error:
            found.unread.append(UnreadEntry(place=error.what.replace(f"{folder}/", ""), why=error.why))
        if is_report:
            for trace in read_traces(folder):
                found.traces.setdefault(trace.run_id, []).append(trace)
        else:
            store = Store(folder)
            for r in results[:MAX_DETAILS]:
                run_traces = found.traces.setdefault(r.run_id, [])
                run_traces += [trace for trace in store.traces(r) if trace not in run_traces]
    return found


def _is_same_run(one: Result, other: Result) -> bool:
    """Whether two results of a run_id are the same run: they are equal or have the same attempts."""
    names = [row.name for row in one.each_attempt]
    return one == other or (bool(names) and names == [row.name for row in other.each_attempt])


def load_traces(folders: Sequence[str], results: Sequence[Result]) -> dict[str, list[Trace]]:
    """Load the raw steps of the first MAX_DETAILS results, by run_id, where these stores and reports have them."""
    found: dict[str, list[Trace]] = {}
    for folder in map(Path, folders):
        stored: dict[str, list[Trace]] = {}
        for trace in read_traces(folder):
            stored.setdefault(trace.run_id, []).append(trace)
        for r in results[:MAX_DETAILS]:
            if r.run_id not in found and (steps := stored.get(r.run_id) or Store(folder).traces(r)):
                found[r.run_id] = steps
    return found


def decode_any_schema(line: str) -> Result:
    """Decode one line of any schema. Raises ValueError if it lacks the fields that identify a run.

    From another schema, fields of the same name are kept, other fields are dropped and missing ones are unknown. A
    finding reports this and makes the verdict unknown, because a name may have another meaning there.
    """
    try:
        return decode_result(line)
    except (ValueError, msgspec.MsgspecError) as error:
        raw = msgspec.json.decode(line)
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


# Values for "unknown" of fields that cannot be null.
_UNKNOWN: Mapping[str, Any] = {"findings": [], "each_attempt": [], "setup_s": {}, "environment": {}, "data_sha256": ""}


def _has_other_fields(raw: Mapping[str, Any]) -> bool:
    """Whether a line's fields are not those of a result."""
    return set(raw) != set(Result.__struct_fields__)


def _read_report(folder: Path, unread: list[UnreadEntry]) -> list[Result]:
    path = folder / RUNS
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadStore(
            what=f"cannot read {path}", why=str(error), next="write it again with `tunemark report`"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(decode_any_schema(line))
        except (ValueError, msgspec.MsgspecError) as error:
            unread.append(UnreadEntry(place=f"{path.name}, line {number}", why=str(error)))
    return found


def _read_store(folder: Path, catalog: Catalog, unread: list[UnreadEntry]) -> list[Result]:
    broken: list[TunemarkError] = []
    found = Store(folder).results(catalog, broken=broken.append)
    for error in broken:
        unread.append(UnreadEntry(place=error.what.replace(f"{folder}/", ""), why=error.why))
    return found
