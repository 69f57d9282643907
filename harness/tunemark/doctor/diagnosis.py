"""What a check of the machine says: how bad, by what evidence, and how it is mended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

# severe: it changes rates by percents, or ends runs. minor: worth knowing when figures of two machines are compared.
# unknown: this machine does not say.
Level = Literal["severe", "minor", "unknown", "fine"]
_WORST_FIRST: tuple[Level, ...] = get_args(Level)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one check. check: its name. evidence: what was read, and where. remedy: the command or the change
    that mends it; empty where there is nothing to mend."""

    check: str
    level: Level
    evidence: str
    remedy: str = ""


def fine(check: str, evidence: str) -> Diagnosis:
    return Diagnosis(check=check, level="fine", evidence=evidence)


def unknown(check: str, evidence: str) -> Diagnosis:
    return Diagnosis(check=check, level="unknown", evidence=evidence)


def minor(check: str, evidence: str, remedy: str) -> Diagnosis:
    return Diagnosis(check=check, level="minor", evidence=evidence, remedy=remedy)


def severe(check: str, evidence: str, remedy: str) -> Diagnosis:
    return Diagnosis(check=check, level="severe", evidence=evidence, remedy=remedy)


def sort_diagnoses(found: Iterable[Diagnosis]) -> list[Diagnosis]:
    """The worst first; equal ones stay in their order."""
    return sorted(found, key=lambda each: _WORST_FIRST.index(each.level))
