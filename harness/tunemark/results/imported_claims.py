"""Audited claims of other parties, stored next to our own results: each row says that it was not measured here.

A store keeps them in `imported/`, one JSON object per file, named by its content hash; a report in `imported.jsonl`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tunemark.errors import BadStore
from tunemark.plugin.descriptors import Finding
from tunemark.redaction import hide_secrets
from tunemark.results.result import Verdict
from tunemark.results.stored_file import read_stored_file

CLAIMS_FILE = "imported.jsonl"
_FOLDER = "imported"
# History of the schema: 1, first form.
SCHEMA = 1


class ImportedClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One audited claim; kind: 'measured' if it is a run of our own.

    id: of the table's row, or the file's name. meaning: what the tool's figure counts; counts: the same in a word, null
    if ambiguous. count: packages as sold. tokens_per_s_claimed: as stated, or the median of the printed rates after the
    first; tokens_per_s_rederived: by each other way; arithmetic: of all of them. mfu_implied: of the dense peak, by
    `mfu_convention`. missing: facts needed for a full audit. origin: where each fact comes from, if known.
    """

    id: str
    source: str
    tool: str
    meaning: str
    counts: str | None
    model: str | None
    device: str | None
    count: int | None
    precision: str | None
    sequence: int | None
    global_batch: int | None
    tokens_per_s_claimed: float | None
    tokens_per_s_rederived: dict[str, float]
    arithmetic: dict[str, str]
    mfu_implied: float | None
    mfu_convention: str | None
    mfu_implied_full_attention: float | None
    peak_flops: float | None
    peak_source: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    origin: dict[str, str]
    notes: tuple[str, ...]
    kind: Literal["imported", "measured"] = "imported"
    schema: int = SCHEMA


def encode_claim(row: ImportedClaim) -> str:
    """A row as one line of JSON."""
    return msgspec.json.encode(row).decode()


def store_claims(rows: Iterable[ImportedClaim], store: Path) -> None:
    """Write rows to a store; equal rows are stored once. Raises `BadStore` if it cannot be written."""
    folder = store / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            line = hide_secrets(encode_claim(row))
            (folder / f"{hashlib.sha256(line.encode()).hexdigest()[:16]}.json").write_text(line + "\n")
    except OSError as error:
        raise BadStore(
            what=f"cannot write to {folder}", why=str(error), next="name another folder by --store"
        ) from error


def read_stored_claims(folder: Path) -> list[ImportedClaim]:
    """The rows of a store or a report's folder, which may have none."""
    paths: Sequence[Path] = [*sorted((folder / _FOLDER).glob("*.json")), folder / CLAIMS_FILE]
    found: list[ImportedClaim] = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            lines = read_stored_file(path).decode().splitlines()
            found += [row for line in lines if (row := msgspec.json.decode(line, type=ImportedClaim)) not in found]
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise BadStore(
                what=f"{path} is no audited claim", why=str(error), next="remove it, and audit its source again"
            ) from error
    return found
