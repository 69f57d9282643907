"""Scaling and ratios of figures that others published: of audited claims, which have no attempts and so no interval.

Speed-up is X(N) / X(N0), efficiency the speed-up x N0 / N. The serial share that a size shows is Karp and Flatt's
(1990, "Measuring parallel processor performance") for strong scaling, Gustafson's (1988, "Reevaluating Amdahl's law")
for weak scaling; both take the smallest size as one unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunemark.errors import BadExperiment
from tunemark.results import ImportedClaim

_FIELDS = ("model", "device", "precision", "sequence", "global_batch", "counts", "tool")
# The fields of a claim that an axis of comparison varies.
_AXES: dict[str, tuple[str, ...]] = {
    "size": ("count", "global_batch"), "count": ("count", "global_batch"), "device": ("device",), "model": ("model",),
    "precision": ("precision",), "sequence": ("sequence",), "global_batch": ("global_batch",),
    "tool": ("tool", "counts"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimPoint:
    """One claim of a group. speedup, efficiency: against the group's first; serial_share: by the law of the mode, None
    for the first, and where the speed-up is more than linear."""

    id: str
    count: int
    global_batch: int | None
    tokens_per_s: float
    speedup: float
    efficiency: float
    serial_share: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimScaling:
    """The sizes of claims that are alike in all else. title: in what."""

    title: str
    points: tuple[ClaimPoint, ...]


def scale_claims(rows: Sequence[ImportedClaim], mode: Literal["strong", "weak"]) -> list[ClaimScaling]:
    """The scalings of claims of one source that differ only in their count: with the same global batch (strong), or
    with the same one per device (weak). Claims without a rate or a count are left out."""
    groups: dict[tuple[object, ...], dict[int, ImportedClaim]] = defaultdict(dict)
    for row in rows:
        if row.kind != "imported" or not row.count or not row.tokens_per_s_claimed:
            continue
        batch = row.global_batch
        if batch is not None and mode == "weak":
            kept: object = batch / row.count
        else:
            kept = batch
        alike = tuple(getattr(row, name) for name in _FIELDS if name != "global_batch")
        # Of several claims of one size the last is the newest.
        groups[(kept, _publisher(row), *alike)][row.count] = row
    found = []
    for key, by_count in groups.items():
        if len(by_count) < 2:
            continue
        ordered = [by_count[count] for count in sorted(by_count)]
        words = ", ".join(str(value) for value in key[2:-2] if value is not None)
        found.append(ClaimScaling(title=words, points=tuple(_point(row, ordered[0], mode) for row in ordered)))
    return found


def _publisher(row: ImportedClaim) -> str:
    """The source without the line of a table that it was read from."""
    return row.source.partition(", line ")[0]


def _point(row: ImportedClaim, base: ImportedClaim, mode: str) -> ClaimPoint:
    speedup = (row.tokens_per_s_claimed or 0.0) / (base.tokens_per_s_claimed or 1.0)
    units = (row.count or 1) / (base.count or 1)
    serial = None
    if units > 1 and speedup <= units:
        serial = (1 / speedup - 1 / units) / (1 - 1 / units) if mode == "strong" else (units - speedup) / (units - 1)
    return ClaimPoint(
        id=row.id, count=row.count or 1, global_batch=row.global_batch, tokens_per_s=row.tokens_per_s_claimed or 0.0,
        speedup=speedup, efficiency=speedup / units, serial_share=serial, verdict=row.verdict,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimRatio:
    """A claim's rate over that of the group's first."""

    id: str
    value: str
    tokens_per_s: float
    ratio: float
    per_device: float | None
    verdict: str


def compare_claims(rows: Sequence[ImportedClaim], by: str) -> list[tuple[str, tuple[ClaimRatio, ...]]]:
    """The ratios of claims that differ only in one axis, by group with its title. Raises `BadExperiment` for an axis
    that claims do not have."""
    if by not in _AXES:
        raise BadExperiment(what=f"imported claims cannot be compared by {by!r}", next=f"by one of: {', '.join(_AXES)}")
    free = _AXES[by]
    groups: dict[tuple[object, ...], list[ImportedClaim]] = defaultdict(list)
    for row in rows:
        if row.kind == "imported" and row.tokens_per_s_claimed:
            groups[tuple(getattr(row, name) for name in (*_FIELDS, "count") if name not in free)].append(row)
    found = []
    for key, group in groups.items():
        if all(isinstance(getattr(row, free[0]), int) for row in group):
            # Numbers from the smallest on; names in the order in which they were published.
            group.sort(key=lambda row: getattr(row, free[0]))
        first = group[0]
        if len({getattr(row, free[0]) for row in group}) < 2:
            continue
        words = ", ".join(str(value) for value in key if value is not None)
        found.append((words, tuple(_ratio(row, first, free[0]) for row in group)))
    return found


def _ratio(row: ImportedClaim, base: ImportedClaim, field: str) -> ClaimRatio:
    rate = row.tokens_per_s_claimed or 0.0
    ratio = rate / (base.tokens_per_s_claimed or 1.0)
    return ClaimRatio(
        id=row.id, value=str(getattr(row, field)), tokens_per_s=rate, ratio=ratio, verdict=row.verdict,
        per_device=ratio / (row.count / base.count) if row.count and base.count else None,
    )  # fmt: skip
