"""Fit a law to the sizes of a scaling, and predict larger sizes by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunemark.analysis.scaling_types import CurvePoint, ScalingFit
from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.results.result import Result

# Of the curve as it is drawn.
_STEPS = 32


def fit_scaling(
    good: Sequence[Result],
    unit: str | None,
    units: Mapping[str, float],
    rates: Mapping[str, Sequence[float]],
    mode: ScalingMode,
    predict: Sequence[float],
) -> tuple[ScalingFit | None, str | None]:
    """The fit, or why there is none. units, rates: of each run, by its id. predict: N beyond the largest size."""
    if unit is None:
        return None, "how many chips or devices each size has is not known, so there is no N to fit over"
    if len({units[r.run_id] for r in good}) < len(good):
        return None, f"several sizes have the same number of {unit}, so that N does not tell them apart"
    # Imported late: importing numpy would slow down every command that only writes a report.
    from tunemark.analysis import speedup_laws

    sizes = [speedup_laws.SizeObservations(units[r.run_id], tuple(map(math.log, rates[r.run_id]))) for r in good]
    reason = speedup_laws.why_no_fit(sizes)
    if reason:
        return None, reason
    smallest, largest = min(s.units for s in sizes), max(s.units for s in sizes)
    beyond = sorted({2 * largest, *(n for n in predict if n > largest)})
    found = speedup_laws.fit_laws(sizes, mode, reach=beyond[-1])

    def at(units: Sequence[float]) -> tuple[CurvePoint, ...]:
        bands = zip(units, found.rates(units), found.speedups(units), strict=True)
        return tuple(
            CurvePoint(units=n, predicted=n > largest, tokens_per_s=x, speedup=s, efficiency=s.times(smallest / n))
            for n, x, s in bands
        )

    curve = (smallest * (beyond[-1] / smallest) ** (i / _STEPS) for i in range(_STEPS + 1))
    drawn = sorted({*(float(f"{x:.6g}") for x in curve), *(s.units for s in sizes), *beyond})
    fitted = ScalingFit(
        law=found.fits[0].law,
        criterion=speedup_laws.CRITERION,
        fits=found.fits,
        curve=at(drawn),
        predictions=at(beyond),
        band_of=found.band_of,
        misfit_p=found.misfit_p,
        is_misfit=found.is_misfit,
        peak_units=found.peak_units,
    )
    return fitted, None
