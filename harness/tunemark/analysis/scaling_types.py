"""What a scaling says: its sizes, the fitted laws, the best sizes. The types of `tunemark scale --json`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.plugin.descriptors import Finding
from tunemark.results.result import Estimate

Law = Literal["amdahl", "gustafson", "usl"]
SizeGoal = Literal["fastest", "cheapest", "knee"]

# History of the schema: 1, first form.
SCHEMA = 1


class ScalingPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One size. units: N, None if unknown. speedup: X(N) / X(N0). efficiency: speedup x N0 / N.

    marginal_efficiency: the rate that each unit above the next smaller size adds, over the rate of one unit at N0. All
    three are None if the size is left out. communication_share: of a step's time, from the breakdown run. left_out: why
    it is excluded from fits and choices, else None. is_base: it is N0.
    """

    run_id: str
    size: str
    units: float | None
    processes: int
    data_ranks: int
    global_batch: int
    gradient_accumulation: int
    status: str
    verdict: str
    oversubscribed: bool
    simulated: bool
    is_base: bool
    tokens_per_s: Estimate | None
    tokens_per_s_per_unit: float | None
    speedup: Estimate | None
    efficiency: Estimate | None
    marginal_efficiency: Estimate | None
    communication_share: float | None
    communication_reason: str | None
    peak_memory_bytes: int | None
    left_out: str | None


class Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A curve at one N. low, high: pointwise 95 % interval. band_low, band_high: simultaneous 95 % band of the whole
    curve, from the smallest size to the farthest prediction. None is unbounded."""

    value: float
    low: float | None
    high: float | None
    band_low: float | None
    band_high: float | None

    def times(self, factor: float) -> Band:
        """The band of the curve times a factor."""
        value, *bounds = msgspec.structs.astuple(self)
        low, high, band_low, band_high = (None if x is None else x * factor for x in bounds)
        return Band(value=value * factor, low=low, high=high, band_low=band_low, band_high=band_high)


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted law at one N. predicted: N lies beyond the measured sizes."""

    units: float
    predicted: bool
    tokens_per_s: Band
    speedup: Band
    efficiency: Band


class FittedLaw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A law that was tried. parameters: x1, the rate of one unit in tokens/s; s, the serial share (contention); k, the
    coherency cost of the USL. residual: relative standard deviation of attempts around it. weight: Akaike weight."""

    law: Law
    parameters: dict[str, Estimate]
    residual: float
    aicc: float
    weight: float


class ScalingFit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The laws that were tried, the chosen one first, and its curve.

    curve: for drawing, from the smallest size to the farthest prediction. predictions: at sizes beyond those measured.
    band_of: the laws that the intervals cover. misfit_p: p value of the sizes' deviation from the curve under attempts'
    noise alone. peak_units: N of the highest rate; high is None if no upper bound is shown.
    """

    law: Law
    criterion: str
    fits: tuple[FittedLaw, ...]
    curve: tuple[CurvePoint, ...]
    predictions: tuple[CurvePoint, ...]
    band_of: tuple[Law, ...]
    misfit_p: float | None
    is_misfit: bool
    peak_units: Estimate | None


class BestSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The best size for a goal. size: None if there is none. shown: its intervals separate it from every other measured
    size. evidence: the figures."""

    goal: SizeGoal
    size: str | None
    shown: bool
    evidence: str


class Scaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one experiment. batch: the global batch (strong) or that of one data rank (weak), sequences.

    unit: what N counts: chips, or devices if chips are unknown; None if both are. base: the size N0, the smallest that
    is not left out; None if all are. no_fit: why there is no fit. shared: fields in which all runs agree, by their
    names in results.
    """

    mode: ScalingMode
    title: str
    model: str
    device: str
    strategy: str
    batch: float
    unit: str | None
    chip: str
    simulated: bool
    base: str | None
    points: tuple[ScalingPoint, ...]
    fitted: ScalingFit | None
    no_fit: str | None
    best: tuple[BestSize, ...]
    findings: tuple[Finding, ...]
    shared: dict[str, Any]
    schema: int = SCHEMA


def encode_scaling(scaling: Scaling) -> str:
    """A scaling as one line of JSON."""
    return msgspec.json.encode(scaling).decode()
