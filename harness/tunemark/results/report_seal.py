"""A report's `report.json`: the files that were written into its folder, with their hashes.

It says which files are the report's own, so that writing it again replaces those and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tunemark.results.seal import SealState
from tunemark.results.stored_file import read_stored_file

REPORT_SEAL_FILE = "report.json"
_MOST_PROBLEMS = 5
_OWN_NAME = re.compile(r"(?:[^/\\\x00]+/)?[^/\\\x00]+")


class ReportSeal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of report.json. files: paths in the folder, with / between parts, and the SHA-256 of each. sha256: of
    the rest of it."""

    files: dict[str, str]
    sha256: str = ""
    schema: int = 1

    def encode(self) -> bytes:
        """The content of the file, with its own hash."""
        bare = _encode(msgspec.structs.replace(self, sha256=""))
        return _encode(msgspec.structs.replace(self, sha256=hashlib.sha256(bare).hexdigest()))


def seal_report(files: Mapping[str, bytes]) -> bytes:
    """The content of report.json for these files."""
    return ReportSeal(files={name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}).encode()


def read_report_seal(folder: Path) -> ReportSeal | None:
    """The list of a report's files; None if there is none. ValueError if it was touched."""
    try:
        content = read_stored_file(folder / REPORT_SEAL_FILE)
    except FileNotFoundError:
        return None
    try:
        seal = msgspec.json.decode(content, type=ReportSeal)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if seal.encode() != content:
        raise ValueError("it is not as it was written")
    # Reports write into their folder and one below it. What a list says beyond is not the report's.
    if outside := [name for name in seal.files if not _OWN_NAME.fullmatch(name) or ".." in name.split("/")]:
        raise ValueError(f"it names {outside[0]!r}, which no report writes")
    return seal


def check_report(folder: Path) -> tuple[SealState, tuple[str, ...]]:
    """Whether a report's files are what was written, and what was touched, or why it is unsealed."""
    try:
        seal = read_report_seal(folder)
    except (OSError, ValueError) as error:
        return "touched", (f"{REPORT_SEAL_FILE} cannot be read: {error}",)
    if seal is None:
        return "unsealed", (f"it has no {REPORT_SEAL_FILE}: an earlier version wrote it",)
    problems = []
    for name, sha256 in seal.files.items():
        try:
            found = hashlib.sha256(read_stored_file(folder / name)).hexdigest()
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if found != sha256:
            problems.append(f"{name} has changed")
    return ("touched" if problems else "whole"), tuple(problems[:_MOST_PROBLEMS])


def _encode(seal: ReportSeal) -> bytes:
    return msgspec.json.format(msgspec.json.encode(seal), indent=1) + b"\n"
