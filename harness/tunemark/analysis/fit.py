"""Which micro-batches fit, and which of them is the fastest: the cells of a study, judged by their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from tunemark.results.ratio import Ratio, attempt_rates, rate_ratio
from tunemark.results.result import Estimate, Result
from tunemark.results.studies import FitCell, FitStudy

# fits: it ran and held no more than the limit. does not fit: an allocation failed, or it held more. failed: it ended
# otherwise, which says nothing of memory.
FitAnswer = Literal["fits", "does not fit", "failed", "not measured"]


class MeasuredCell(msgspec.Struct, frozen=True, kw_only=True):
    """A micro-batch with what its run says. evidence: why it does not fit, failed or was not measured."""

    micro_batch: int
    answer: FitAnswer
    predicted_bytes: float | None
    run_id: str | None
    evidence: str = ""
    simulated: bool = False
    peak_memory_bytes: int | None = None
    requested_bytes: int | None = None
    tokens_per_s: Estimate | None = None
    slot_tokens_per_s: Estimate | None = None

    @property
    def predicted_over_measured(self) -> float | None:
        """The predicted peak over the measured one, of a cell that fits."""
        if self.answer != "fits" or not self.predicted_bytes or not self.peak_memory_bytes:
            return None
        return self.predicted_bytes / self.peak_memory_bytes


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """largest: the largest micro-batch that was measured to fit below every one that was measured not to; null if none
    does. too_large: the smallest that was measured not to fit; null if none was. fastest: the one with the highest rate
    of content tokens; ratio: its rate over the next best's, with its interval."""

    settings: dict[str, str]
    cells: tuple[MeasuredCell, ...]
    largest: int | None
    too_large: int | None
    fastest: int | None
    next_best: int | None
    ratio: Ratio | None

    @property
    def is_exact(self) -> bool:
        """Whether the next micro-batch of the row was measured not to fit."""
        tried = [cell.micro_batch for cell in self.cells]
        if self.largest is None or self.too_large is None:
            return False
        return self.too_large == self.largest + 1 or tried.index(self.too_large) == tried.index(self.largest) + 1


class FitMap(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    title: str
    limit_bytes: int | None
    limit: str
    rows: tuple[MeasuredRow, ...]


def map_fit(study: FitStudy, results: Mapping[str, Result]) -> FitMap:
    """The map of a study. results: by run_id; cells whose runs are not among them count as not measured."""
    rows = []
    for row in study.rows:
        cells = tuple(judge_cell(cell, results.get(cell.run_id or ""), study.limit_bytes) for cell in row.cells)
        fitting = [cell for cell in cells if cell.answer == "fits"]
        too_large = min((cell.micro_batch for cell in cells if cell.answer == "does not fit"), default=None)
        below = [cell.micro_batch for cell in fitting if too_large is None or cell.micro_batch < too_large]
        ranked = sorted((cell for cell in fitting if cell.tokens_per_s), key=_rate, reverse=True)
        ratio = None
        if len(ranked) > 1:
            ratio = rate_ratio(*(results[cell.run_id or ""] for cell in ranked[:2]))
        rows.append(
            MeasuredRow(
                settings=row.settings,
                cells=cells,
                largest=max(below, default=None),
                too_large=too_large,
                fastest=ranked[0].micro_batch if ranked else None,
                next_best=ranked[1].micro_batch if len(ranked) > 1 else None,
                ratio=ratio,
            )
        )
    return FitMap(id=study.id, title=study.title, limit_bytes=study.limit_bytes, limit=study.limit, rows=tuple(rows))


def judge_cell(cell: FitCell, result: Result | None, limit_bytes: int | None) -> MeasuredCell:
    """Whether a cell fits, by its run."""
    if result is None:
        return MeasuredCell(
            micro_batch=cell.micro_batch,
            answer="not measured",
            predicted_bytes=cell.predicted_bytes,
            run_id=cell.run_id,
            evidence=cell.reason,
        )
    answer: FitAnswer = "fits"
    evidence = ""
    held = result.peak_memory_bytes
    if result.status == "oom":
        ended = next((row for row in reversed(result.each_attempt) if row.status == "oom"), None)
        answer, evidence = "does not fit", " ".join(ended.evidence.split()) if ended else ""
    elif result.status != "ok" or not attempt_rates(result):
        ended = result.each_attempt[-1] if result.each_attempt else None
        words = " ".join(ended.evidence.split()) if ended else ""
        answer, evidence = "failed", f"{result.status}: {words}" if result.status != "ok" else "no step was timed"
    elif limit_bytes is not None and held is not None and held > limit_bytes:
        answer, evidence = "does not fit", f"it held {held:,} bytes, more than the {limit_bytes:,} that it may use"
    return MeasuredCell(
        micro_batch=cell.micro_batch,
        answer=answer,
        predicted_bytes=cell.predicted_bytes,
        run_id=result.run_id,
        evidence=evidence,
        simulated=result.simulated,
        peak_memory_bytes=held,
        requested_bytes=result.requested_bytes,
        tokens_per_s=result.tokens_per_s,
        slot_tokens_per_s=result.slot_tokens_per_s,
    )


def list_fits(studies: Sequence[object], results: Sequence[Result]) -> list[FitMap]:
    """The maps among some studies of which at least one run is among the results."""
    by_run = {result.run_id: result for result in results}
    maps = [map_fit(study, by_run) for study in studies if isinstance(study, FitStudy)]
    return [each for each in maps if any(cell.run_id in by_run for row in each.rows for cell in row.cells)]


def _rate(cell: MeasuredCell) -> float:
    return cell.tokens_per_s.value if cell.tokens_per_s else 0.0
