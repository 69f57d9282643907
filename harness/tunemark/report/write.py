"""A report's files: runs.jsonl, which is every result whole, imported.jsonl of audited claims where there are any, and
one file for each format plugin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunemark.analysis.scaling import Scaling
from tunemark.errors import BadStore, PluginError
from tunemark.plugin import Catalog
from tunemark.plugin.catalog import load
from tunemark.report.report import arrange
from tunemark.results.imported import IMPORTED, Imported, encode_imported
from tunemark.results.result import Result, decode, encode

RUNS = "runs.jsonl"
_ANEW = "write it anew with `tunemark report STORE -o DIR`"


def write(
    results: Sequence[Result],
    folder: Path,
    catalog: Catalog,
    imported: Sequence[Imported] = (),
    scalings: Sequence[Scaling] | None = None,
) -> list[Path]:
    """Write all files and return their paths; scalings as `arrange` takes them.

    A format that fails is a `PluginError` after the others are written."""
    contents = {folder / RUNS: "".join(encode(r) + "\n" for r in results).encode()} if results else {}
    if imported:
        contents[folder / IMPORTED] = "".join(encode_imported(row) + "\n" for row in imported).encode()
    report = arrange(results, imported, scalings)
    failed: PluginError | None = None
    for form in catalog.formats().values():
        try:
            contents[folder / f"report{form.suffix}"] = load(form.render)(report)
        # A stranger's renderer is on the other side.
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            failed = PluginError(what=f"the format {form.name!r} failed", why=why, next="report it to its plugin")
            failed.__cause__ = error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_bytes(content)
            os.replace(part, path)
    except OSError as error:
        raise BadStore(
            what=f"cannot write the report to {folder}", why=str(error), next="name another folder by --output"
        ) from error
    if failed:
        raise failed
    return list(contents)


def read(folder: Path) -> list[Result]:
    """The results of a folder that `write` made; `BadStore` names the line that is none."""
    path = folder / RUNS
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadStore(
            what=f"cannot read {path}", why=str(error), next="write it anew with `tunemark report`"
        ) from error
    for number, line in enumerate(lines, 1):
        try:
            found.append(decode(line))
        except ValueError as error:
            raise BadStore(what=f"{path}, line {number} is no result", why=str(error), next=_ANEW) from error
    return found
