"""What a run will make of its data: lengths of documents, rows, padding, steps and trained tokens of an epoch.

Rows are formed as the worker forms them (`tunemark_worker.row_packing`), so the counts are exact, not estimates.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunemark.data.token_file import PreparedData, TokenArrays, read_token_file
from tunemark.experiment import RunSpec
from tunemark.fields import read_fields
from tunemark_worker import row_packing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BATCHINGS = ("pad", "bucket", "pack")
_QUANTILES = (0.05, 0.5, 0.95)
# Of a folder's files that are not read, how many are named.
_NAMED_FILES = 5
# Bars of the histogram: lengths are doubled from one to the next.
_MOST_BARS = 10
# Tokens whose mask is looked at at a time.
_CHUNK_TOKENS = 1 << 24


class LengthBar(NamedTuple):
    """Documents of `first` to `last` tokens. last: None for all longer ones."""

    first: int
    last: int | None
    documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSettings:
    """The settings of a run that decide about its rows. held: documents held out for evaluation."""

    sequence: int
    batching: str
    micro_batch: int
    global_batch: int
    seed: int
    epochs: int | None = None
    held: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """The documents of a run and what an epoch makes of them.

    documents, tokens: of the dataset; held_out_documents of them are kept for evaluation. tokens_by_role: of prompts
    and responses; None where unknown. length_quantiles: tokens at 5, 50 and 95 %. truncated_documents, cut_tokens:
    beyond the sequence. trained_tokens: with a label in one epoch, cut tokens left out. untrained_documents: without
    any. rows, slots, padding_fraction: of the first epoch at the run's batching; padding_by_batching: at each.
    mean_width: slots of a row on average; widest: of the widest micro-batch. steps_per_epoch: of the global batch, with
    a fraction. steps: of all epochs, None where their number is not given; unused_rows: at the end of the last epoch,
    which do not fill a batch. remarks: what is left out or skipped.
    """

    documents: int
    held_out_documents: int
    tokens: int
    tokens_by_role: Mapping[str, int] | None
    mean_length: float
    length_quantiles: Mapping[str, int]
    longest: int
    histogram: Sequence[LengthBar]
    sequence: int
    truncated_documents: int
    cut_tokens: int
    trained_tokens: int
    untrained_documents: int
    batching: str
    rows: int
    slots: int
    padding_fraction: float
    padding_by_batching: Mapping[str, float]
    mean_width: float
    widest: int
    global_batch: int
    steps_per_epoch: float
    epochs: int | None
    steps: int | None
    unused_rows: int | None
    remarks: Sequence[str]

    @property
    def cut_fraction(self) -> float:
        return self.cut_tokens / self.tokens

    def as_dict(self) -> dict[str, Any]:
        """JSON values, with the histogram's bars as objects."""
        bars = [{"first": first, "last": last, "documents": count} for first, last, count in self.histogram]
        return {**asdict(self), "histogram": bars, "cut_fraction": self.cut_fraction}


def make_row_settings(spec: RunSpec) -> RowSettings:
    """The row settings of a run."""
    return RowSettings(
        **read_fields(spec, "sequence", "batching", "micro_batch", "global_batch", "seed", "epochs"),
        held=spec.evaluate or 0,
    )


def make_point_rows(values: Mapping[str, Any], global_batch: int) -> RowSettings:
    """The row settings of a run that is not resolved further. values: of its settings, by name."""
    named = {name: values[name] for name in ("sequence", "batching", "micro_batch", "seed", "epochs")}
    return RowSettings(**named, global_batch=global_batch, held=values["evaluate"] or 0)


class RowWidths(NamedTuple):
    """Rows of an epoch, their slots together, and the slots of a row of the widest micro-batch."""

    rows: int
    slots: int
    widest: int

    @property
    def mean(self) -> float:
        """Slots of a row."""
        return self.slots / self.rows


class EpochTokens(NamedTuple):
    """What an epoch of a dataset trains on. documents, tokens: without held-out ones. truncated_documents, cut_tokens:
    beyond the sequence. trained_tokens: with a label within it. untrained_documents: without any."""

    documents: int
    tokens: int
    truncated_documents: int
    cut_tokens: int
    trained_tokens: int
    untrained_documents: int


def count_epoch_tokens(prepared: PreparedData, settings: RowSettings) -> EpochTokens:
    """The tokens of one epoch at a run's sequence; no row is formed, so that it takes milliseconds."""
    arrays = read_token_file(Path(prepared.token_file.path))
    return _count_epoch_tokens(arrays, _list_lengths(arrays, settings.held), settings.sequence)


def _list_lengths(arrays: TokenArrays, held: int) -> npt.NDArray[np.int64]:
    """Lengths of the documents, 0 for those held out."""
    import numpy as np

    lengths: npt.NDArray[np.int64] = np.diff(arrays.offsets)
    return np.asarray(row_packing.training_lengths(lengths.tolist(), held), np.int64) if held else lengths


def _count_epoch_tokens(arrays: TokenArrays, lengths: npt.NDArray[np.int64], sequence: int) -> EpochTokens:
    import numpy as np

    cut = np.minimum(lengths, sequence)
    labels = _count_labels(arrays, cut)
    return EpochTokens(
        documents=int((lengths > 0).sum()),
        tokens=int(lengths.sum()),
        truncated_documents=int((lengths > sequence).sum()),
        cut_tokens=int((lengths - cut).sum()),
        trained_tokens=int(labels.sum()),
        untrained_documents=int(((labels == 0) & (lengths > 0)).sum()),
    )


def summarize_data(prepared: PreparedData, settings: RowSettings) -> DataSummary:
    """The summary of a token file at a run's settings."""
    import numpy as np

    arrays = read_token_file(Path(prepared.token_file.path))
    lengths = np.diff(arrays.offsets)
    trained_on = _list_lengths(arrays, settings.held)
    epoch = _count_epoch_tokens(arrays, trained_on, settings.sequence)
    rows = {batching: _measure_rows(trained_on, replace(settings, batching=batching)) for batching in BATCHINGS}
    content = epoch.tokens - epoch.cut_tokens
    padding = {name: (found.slots - content) / found.slots for name, found in rows.items()}
    own = rows[settings.batching]
    steps = unused = None
    if settings.epochs is not None:
        total = _count_rows(trained_on, settings, settings.epochs)
        steps, unused = divmod(total, settings.global_batch)
    used = lengths[lengths > 0]
    facts = prepared.facts
    skipped = facts["origin"].get("skipped")
    remarks = list(facts.get("remarks", ()))
    if skipped:
        remarks.append(f"{skipped['rows']:,} incomplete rows are skipped; the first: {skipped['first']}")
    if how := facts["origin"].get("rows_are"):
        remarks.append(f"rows are read from {how}")
    if unread := facts["origin"].get("unread_files"):
        split = facts["origin"].get("split")
        more = f" and {len(unread) - _NAMED_FILES} more" if len(unread) > _NAMED_FILES else ""
        of = f"rows are those of the split {split}; " if split else ""
        remarks.append(f"{of}not read of the folder: {', '.join(unread[:_NAMED_FILES])}{more}")
    return DataSummary(
        documents=len(lengths),
        held_out_documents=settings.held,
        tokens=int(lengths.sum()),
        tokens_by_role=facts.get("tokens_by_role"),
        mean_length=float(used.mean()),
        length_quantiles={f"{100 * q:g} %": int(np.quantile(used, q, method="lower")) for q in _QUANTILES},
        longest=int(lengths.max()),
        histogram=_make_histogram(used),
        sequence=settings.sequence,
        truncated_documents=epoch.truncated_documents,
        cut_tokens=epoch.cut_tokens,
        trained_tokens=epoch.trained_tokens,
        untrained_documents=epoch.untrained_documents,
        batching=settings.batching,
        rows=own.rows,
        slots=own.slots,
        padding_fraction=padding[settings.batching],
        padding_by_batching=padding,
        mean_width=own.mean,
        widest=own.widest,
        global_batch=settings.global_batch,
        steps_per_epoch=own.rows / settings.global_batch,
        epochs=settings.epochs,
        steps=steps,
        unused_rows=unused,
        remarks=tuple(remarks),
    )


def list_widths(prepared: PreparedData, settings: RowSettings) -> list[int]:
    """Every width that a micro-batch of a run can have."""
    if settings.batching != "bucket":
        return [settings.sequence]
    longest = int(_list_lengths(read_token_file(Path(prepared.token_file.path)), settings.held).max())
    step = row_packing.WIDTH_MULTIPLE
    return sorted({min(width, settings.sequence) for width in range(step, row_packing.round_width(longest) + 1, step)})


def measure_widths(prepared: PreparedData, settings: RowSettings) -> RowWidths:
    """The widths of the rows of a run's first epoch."""
    return _measure_rows(_list_lengths(read_token_file(Path(prepared.token_file.path)), settings.held), settings)


def _measure_rows(lengths: npt.NDArray[np.int64], settings: RowSettings) -> RowWidths:
    """Of one epoch. A last micro-batch that is not full counts as it would be."""
    if settings.batching != "bucket":
        found = _count_rows(lengths, settings, 1)
        return RowWidths(rows=found, slots=found * settings.sequence, widest=settings.sequence)
    count = slots = widest = 0
    rows = (row for _, row in _make_rows(lengths, settings, 1))
    while micro_batch := list(itertools.islice(rows, settings.micro_batch)):
        width = row_packing.micro_batch_width(micro_batch, settings.sequence, settings.batching)
        count, slots, widest = count + len(micro_batch), slots + len(micro_batch) * width, max(widest, width)
    return RowWidths(rows=count, slots=slots, widest=widest)


def _count_rows(lengths: npt.NDArray[np.int64], settings: RowSettings, epochs: int) -> int:
    if settings.batching != "pack":
        return epochs * int((lengths > 0).sum())
    return sum(1 for _ in _make_rows(lengths, settings, epochs))


def _make_rows(
    lengths: npt.NDArray[np.int64], settings: RowSettings, epochs: int
) -> Iterator[tuple[int, row_packing.BatchRow]]:
    s = settings
    return row_packing.make_batch_rows(lengths.tolist(), s.sequence, s.batching, s.seed, epochs, s.global_batch)


def _count_labels(arrays: TokenArrays, cut: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The labels of each document within its first `cut` tokens: those that are trained on, but for the first token,
    which nothing predicts."""
    import numpy as np

    begins, found = arrays.offsets[:-1], np.zeros(len(cut), np.int64)
    first = 0
    while first < len(cut):
        # Whole documents of about a chunk; one that is longer is a chunk of its own.
        last = int(np.searchsorted(arrays.offsets, begins[first] + _CHUNK_TOKENS, "right")) - 1
        last = min(max(last, first + 1), len(cut))
        offset = int(begins[first])
        sums = np.concatenate([[0], np.cumsum(arrays.trained[offset : int(arrays.offsets[last])], dtype=np.int64)])
        local = np.asarray(begins[first:last]) - offset
        within = np.minimum(1, cut[first:last])
        found[first:last] = sums[local + cut[first:last]] - sums[local + within]
        first = last
    return found


def _make_histogram(lengths: npt.NDArray[np.int64]) -> tuple[LengthBar, ...]:
    """Bars whose bounds double, from the shortest to the longest document."""
    import numpy as np

    # The bar of n holds lengths from 2**n to 2**(n + 1) - 1.
    powers = np.frexp(lengths.astype(np.float64))[1] - 1
    low, high = int(powers.min()), int(powers.max())
    high = min(high, low + _MOST_BARS - 1)
    counts = np.bincount(np.minimum(powers, high) - low, minlength=high - low + 1)
    is_open = int(powers.max()) > high
    return tuple(
        LengthBar(
            first=1 << (low + n),
            last=None if is_open and low + n == high else (2 << (low + n)) - 1,
            documents=int(count),
        )
        for n, count in enumerate(counts)
    )
