"""Runs as they are found: of stores and former reports, of this schema and of others; what cannot be read is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunemark.errors import BadStore, TunemarkError
from tunemark.plugin import Catalog, Finding
from tunemark.report.arrange import DETAILS, Unread
from tunemark.results import Imported, Result, Store, read_imported
from tunemark.results.findings import merged, verdict
from tunemark.results.result import SCHEMA, decode
from tunemark.results.trace import Trace, read_traces

RUNS = "runs.jsonl"


@dataclass(kw_only=True, slots=True)
class Found:
    """What some folders hold, each run once."""

    results: list[Result] = field(default_factory=list)
    imported: list[Imported] = field(default_factory=list)
    traces: dict[str, list[Trace]] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)


def find(folders: list[Path], catalog: Catalog) -> Found:
    """The runs of stores and of folders that `write` made. `BadStore` where a folder is none at all."""
    found = Found()
    seen: dict[str, list[Result]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadStore(
                what=f"there is no folder {folder}",
                next="give the folder of `tunemark run --store` (by default runs) or of its -o",
            )
        is_report = (folder / RUNS).is_file()
        results = _of_report(folder, found.unread) if is_report else _of_store(folder, catalog, found.unread)
        for result in results:
            same = seen.setdefault(result.run_id, [])
            if not any(_is_same(result, other) for other in same):
                same.append(result)
                found.results.append(result)
        try:
            found.imported += [row for row in read_imported(folder) if row not in found.imported]
        except BadStore as error:
            found.unread.append(Unread(place=error.what.replace(f"{folder}/", ""), why=error.why))
        if is_report:
            for trace in read_traces(folder):
                found.traces.setdefault(trace.run_id, []).append(trace)
        else:
            store = Store(folder)
            for r in results[:DETAILS]:
                known = found.traces.setdefault(r.run_id, [])
                known += [trace for trace in store.traces(r) if trace not in known]
    return found


def _is_same(one: Result, other: Result) -> bool:
    """Whether two folders have the same run: of the very same attempts, or in the very same form."""
    names = [row.name for row in one.each_attempt]
    return one == other or (bool(names) and names == [row.name for row in other.each_attempt])


def traces_in(folders: Sequence[str], results: Sequence[Result]) -> dict[str, list[Trace]]:
    """The raw steps of the first results, as far as these stores and reports have them."""
    found: dict[str, list[Trace]] = {}
    for folder in map(Path, folders):
        kept: dict[str, list[Trace]] = {}
        for trace in read_traces(folder):
            kept.setdefault(trace.run_id, []).append(trace)
        for r in results[:DETAILS]:
            if r.run_id not in found and (some := kept.get(r.run_id) or Store(folder).traces(r)):
                found[r.run_id] = some
    return found


def tolerant(line: str) -> Result:
    """The result of one line of whatever schema. ValueError where it lacks what a run cannot be named without.

    Of another schema than ours, fields of the same name are taken, others are left out, missing ones are unknown; a
    finding says so and leaves the verdict unknown, because a name may mean something else there.
    """
    try:
        return decode(line)
    except (ValueError, msgspec.MsgspecError) as error:
        raw = msgspec.json.decode(line)
        if not isinstance(raw, dict) or "run_id" not in raw:
            raise ValueError("it is no result: it has no run_id") from error
        if raw.get("schema") == SCHEMA and isinstance(error, msgspec.ValidationError) and not _differs(raw):
            raise
    known = {f.name: f for f in msgspec.structs.fields(Result)}
    strange = [name for name in raw if name not in known]
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
    message += f"; unknown to this version and left out: {', '.join(strange)}" if strange else ""
    message += f"; missing and taken as unknown: {', '.join(missing)}" if missing else ""
    own = Finding(rule="other-schema", severity="unknown", message=message)
    findings = merged([(0, f) for f in (*result.findings, own)], 1)
    return msgspec.structs.replace(result, findings=findings, verdict=verdict(findings, result.status))


# Of fields that cannot be null, what says that nothing is known.
_UNKNOWN: Mapping[str, Any] = {"findings": [], "each_attempt": [], "setup_s": {}, "environment": {}, "data_sha256": ""}


def _differs(raw: Mapping[str, Any]) -> bool:
    """Whether a line has other fields than a result."""
    return set(raw) != set(Result.__struct_fields__)


def _of_report(folder: Path, unread: list[Unread]) -> list[Result]:
    path = folder / RUNS
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadStore(
            what=f"cannot read {path}", why=str(error), next="write it anew with `tunemark report`"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(tolerant(line))
        except (ValueError, msgspec.MsgspecError) as error:
            unread.append(Unread(place=f"{path.name}, line {number}", why=str(error)))
    return found


def _of_store(folder: Path, catalog: Catalog, unread: list[Unread]) -> list[Result]:
    broken: list[TunemarkError] = []
    found = Store(folder).results(catalog, broken=broken.append)
    for error in broken:
        unread.append(Unread(place=error.what.replace(f"{folder}/", ""), why=error.why))
    return found
