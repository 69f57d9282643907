"""Writes a report's files: runs.jsonl with every complete result, steps.jsonl with their raw steps if
available, imported.jsonl with audited claims if there are any, and the files of each format plugin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from tunemark.analysis.prices import Prices
from tunemark.analysis.scaling_types import Scaling
from tunemark.atomic_write import write_atomically
from tunemark.errors import BadStore, PluginError
from tunemark.loading import RESULTS_FILE, UnreadEntry
from tunemark.plugin import Catalog, Format
from tunemark.plugin.catalog import load_object
from tunemark.redaction import hide_secrets, make_digest, redact
from tunemark.report.report import Report, Section
from tunemark.report.sections import make_report
from tunemark.report.translation import Language
from tunemark.results.imported_claims import CLAIMS_FILE, ImportedClaim, encode_claim
from tunemark.results.report_seal import REPORT_SEAL_FILE, read_report_seal, seal_report
from tunemark.results.result import Result, encode_result
from tunemark.results.studies import STUDIES_FILE, Study, encode_studies
from tunemark.results.trace import TRACE_FILE, Trace, encode_traces

S = TypeVar("S", bound=msgspec.Struct)

# Facts of the environment that name hosts, addresses and users.
_NAMES = (("host", "name"), ("worker", "node"), ("launcher", "hosts"), ("launcher", "host"), ("launcher", "user"))


# More than ten parameters: those of make_report, and where to write.
def write_report(
    results: Sequence[Result],
    folder: Path,
    catalog: Catalog,
    imported: Sequence[ImportedClaim] = (),
    traces: Mapping[str, Sequence[Trace]] | None = None,
    *,
    unread: Sequence[UnreadEntry] = (),
    scalings: Sequence[Scaling] | None = None,
    studies: Sequence[Study] = (),
    prices: Prices | None = None,
    language: Language = "en",
    more: Sequence[Section] = (),
    is_redacted: bool = True,
) -> list[Path]:
    """Write all files and return their paths. Raises `PluginError` for a format that failed, after writing the others.

    The arguments are those of `make_report`. is_redacted: hosts, users, paths and addresses are hidden, as suits pages
    for others; secrets are hidden in any case."""
    if is_redacted:
        names = list(dict.fromkeys(name for result in results for name in find_names(result)))
        results = redact_results(results)
        imported, unread = redact(list(imported), names), redact(list(unread), names)
        studies = redact(list(studies), names)
        scalings, more = redact(scalings, names), redact(more, names)
    else:
        results, imported = _without_secrets(results), _without_secrets(imported)
    contents = {folder / RESULTS_FILE: "".join(encode_result(r) + "\n" for r in results).encode()} if results else {}
    if imported:
        contents[folder / CLAIMS_FILE] = "".join(encode_claim(row) + "\n" for row in imported).encode()
    report_traces = [trace for r in results for trace in (traces or {}).get(r.run_id, ())]
    if report_traces:
        contents[folder / TRACE_FILE] = encode_traces(report_traces)
    if studies:
        contents[folder / STUDIES_FILE] = encode_studies(studies)
    report = make_report(
        results, imported, traces, scalings=scalings, studies=studies, unread=unread, prices=prices, language=language,
        more=more,
    )  # fmt: skip
    failed: PluginError | None = None
    for form in catalog.formats().values():
        try:
            rendered = _render(form, report, folder)
        except KeyboardInterrupt:
            raise
        # The renderer is plugin code and may raise anything.
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"
            failed = PluginError(what=f"the format {form.name!r} failed", why=why, next="report it to its plugin")
            failed.__cause__ = error
            continue
        contents.update(rendered)
    try:
        # A chart that an earlier report left here would be mistaken for one of this report.
        stale = _find_own_files(folder, contents)
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)
        for path in stale:
            path.unlink()
        own = {path.relative_to(folder).as_posix(): content for path, content in contents.items()}
        write_atomically(folder / REPORT_SEAL_FILE, seal_report(own))
    except OSError as error:
        raise BadStore(
            what=f"cannot write the report to {folder}", why=str(error), next="name another folder with --output"
        ) from error
    if failed:
        raise failed
    return list(contents)


def _without_secrets(rows: Sequence[S]) -> list[S]:
    return [msgspec.json.decode(hide_secrets(msgspec.json.encode(row).decode()), type=type(row)) for row in rows]


def _find_own_files(folder: Path, contents: Mapping[Path, bytes]) -> list[Path]:
    """The files of an earlier report that this one no longer has. `BadStore` if a file in its way is the user's: one
    that no report wrote, or that was changed since."""
    try:
        seal = read_report_seal(folder)
    except ValueError:
        seal = None
    # A folder in it that is a link leads to files elsewhere, which are no report's.
    if links := sorted({path.parent for path in contents if path.parent != folder and path.parent.is_symlink()}):
        raise BadStore(
            what=f"{links[0]} is a link to another folder",
            why="a report writes into its own folder alone",
            next="remove the link, or name another folder with --output",
        )
    own = {name: sha256 for name, sha256 in (seal.files if seal else {}).items() if not _is_behind_link(folder, name)}
    is_earlier = seal is None and (folder / RESULTS_FILE).is_file()  # of a version that kept no list
    for path in contents:
        if not path.exists() or is_earlier:
            continue
        name = path.relative_to(folder).as_posix()
        if name not in own or not _has_hash(path, own[name]):
            why = "it was changed since a report wrote it" if name in own else "no report wrote it"
            raise BadStore(
                what=f"{path} is not overwritten", why=why, next="move it away, or name another folder with --output"
            )
    left = [folder / name for name in own if folder / name not in contents]
    return [path for path in left if path.is_file() and _has_hash(path, own[path.relative_to(folder).as_posix()])]


def _is_behind_link(folder: Path, name: str) -> bool:
    parent = (folder / name).parent
    return parent != folder and parent.is_symlink()


def _has_hash(path: Path, sha256: str) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _render(form: Format, report: Report, folder: Path) -> dict[Path, bytes]:
    # What a plugin names lies in the report's folder.
    for name in (f"report{form.suffix}", *([] if form.folder is None else [form.folder])):
        _check_file_name(name)
    rendered = load_object(form.render)(report)
    if form.folder is None:
        return {folder / f"report{form.suffix}": _check_content(rendered)}
    for name in rendered:
        _check_file_name(name, form.suffix)
    return {folder / form.folder / name: _check_content(content) for name, content in rendered.items()}


def _check_file_name(name: str, suffix: str = "") -> None:
    if PurePosixPath(name).name != name or name == ".." or "\\" in name or not name.endswith(suffix):
        raise ValueError(f"{name!r} is not a file name{f' that ends in {suffix}' if suffix else ''}")


def _check_content(content: object) -> bytes:
    """The content; bytes(7) would be seven zeros."""
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"it returned {type(content).__name__}, not bytes")
    return bytes(content)


def redact_results(results: Sequence[Result]) -> list[Result]:
    """The results without names of hosts and users, folders, addresses and secrets, as suits eyes of others."""
    return [_redact_result(each) for each in results]


def _redact_result(result: Result) -> Result:
    names = find_names(result)
    environment: dict[str, Any] = dict(result.environment)
    for part, name in _NAMES:
        facts = environment.get(part)
        if isinstance(facts, dict) and isinstance(facts.get(name), str):
            environment[part] = {**facts, name: make_digest(facts[name])}
    return redact(msgspec.structs.replace(result, environment=environment), names)


def find_names(result: Result) -> list[str]:
    """The names of hosts and users that a result knows, which texts may name, too."""
    found = []
    for part, name in _NAMES:
        facts = result.environment.get(part)
        value = facts.get(name) if isinstance(facts, dict) else None
        found += [value] if isinstance(value, str) else [str(each) for each in value or ()]
    return [name for name in dict.fromkeys(found) if len(name) > 2 and name != "localhost" and "sha256:" not in name]
