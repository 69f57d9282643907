"""Studies: what several runs were measured together for, and what was asked and not measured, with the reason.

A study names its runs and holds no rate: those are derived from the runs. A store keeps them in `studies/`, one JSON
object per file; a report in `studies.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadStore

STUDIES_FILE = "studies.jsonl"
_FOLDER = "studies"
# History of the schema: 1, first form.
SCHEMA = 1


class LadderRung(msgspec.Struct, frozen=True, kw_only=True):
    """One rung: a setting with its value and what it was before. why: what it is for. run_id: of the run with this rung
    and all those below it that were climbed; null where none was started. reason: why it was not climbed; empty where
    it was, and then the rungs above stand on it."""

    setting: str
    value: str
    plain: str
    why: str
    run_id: str | None = None
    reason: str = ""


class LadderStudy(msgspec.Struct, frozen=True, kw_only=True, tag="ladder", tag_field="kind"):
    """From plain settings to a recipe, a rung at a time. id: of the ladder, from its base. base: the run without any
    rung."""

    id: str
    title: str
    recipe: str
    base: str
    rungs: tuple[LadderRung, ...]
    schema: int = SCHEMA


class FitCell(msgspec.Struct, frozen=True, kw_only=True):
    """One micro-batch of a row. predicted_bytes: peak memory of the rank that needs most, before it was measured; null
    where it cannot be predicted. run_id: null where it was not started, for the reason."""

    micro_batch: int
    predicted_bytes: float | None = None
    run_id: str | None = None
    reason: str = ""


class FitRow(msgspec.Struct, frozen=True, kw_only=True):
    """The micro-batches of one combination of the other settings. settings: those in which rows differ."""

    settings: dict[str, str]
    cells: tuple[FitCell, ...]


class FitStudy(msgspec.Struct, frozen=True, kw_only=True, tag="fit", tag_field="kind"):
    """Which micro-batches fit in memory. limit_bytes: what each process may use, null where only the device says
    when it has no more; limit: in words."""

    id: str
    title: str
    limit_bytes: int | None
    limit: str
    rows: tuple[FitRow, ...]
    schema: int = SCHEMA


Study = LadderStudy | FitStudy


def store_study(study: Study, store: Path) -> None:
    """Write a study to a store, in place of an earlier one of its id. Raises `BadStore` if it cannot be written."""
    path = store / _FOLDER / f"{study.id}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(study))
    except OSError as error:
        raise BadStore(what=f"cannot write {path}", why=str(error), next="name another folder by --store") from error


def encode_studies(studies: Iterable[Study]) -> bytes:
    """One line of JSON for each study."""
    return b"".join(msgspec.json.encode(study) + b"\n" for study in studies)


def read_studies(folder: Path) -> list[Study]:
    """The studies of a store or a report's folder, which may have none; raises `BadStore` for one of another form."""
    paths: Sequence[Path] = [*sorted((folder / _FOLDER).glob("*.json")), folder / STUDIES_FILE]
    found: list[Any] = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            found += [msgspec.json.decode(line, type=Study) for line in path.read_bytes().splitlines() if line.strip()]
        except (OSError, msgspec.MsgspecError) as error:
            again = "remove it, or measure it again with the command that made it"
            raise BadStore(what=f"{path} is no study of this version", why=str(error), next=again) from error
    return found
