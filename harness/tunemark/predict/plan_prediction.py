"""The predicted step of a plan, whose layout is given, on its own device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunemark.errors import BadExperiment
from tunemark.experiment.plan import Plan
from tunemark.physics.chip_peaks import explain_missing_peak
from tunemark.predict.calibration import predict_calibrated
from tunemark.predict.matrix_products import find_peak_name
from tunemark.predict.measured_memory import find_measured_memory
from tunemark.predict.plan_conversion import convert_plan
from tunemark.predict.prediction import Prediction
from tunemark.predict.search import HardwareModel
from tunemark.predict.search_problem import make_hardware_model


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPrediction:
    """predicted: step time and memory. hardware: what it rests on; its `memory_bytes` is what each rank may use."""

    predicted: Prediction
    hardware: HardwareModel


def predict_plan(plan: Plan) -> PlanPrediction | str:
    """The prediction, or a sentence with the reason why there is none."""
    if plan.strategy.is_search:
        return "strategy auto is predicted by `tunemark plan --strategy auto`"
    found = convert_plan(plan)
    if isinstance(found, str):
        return found
    work, layout = found
    try:
        hardware = make_hardware_model(plan, layout.ranks, None)
    except BadExperiment as error:
        return error.one_line()
    if find_peak_name(work.precision) not in hardware.facts.peak_flops:
        known = ", ".join(hardware.facts.peak_flops) or "no precision"
        return explain_missing_peak(hardware.facts.name, work.precision) or f"its peak is known in {known} only"
    predicted = predict_calibrated(work, layout, hardware.facts, hardware.mechanisms)
    line = find_measured_memory(plan)
    if line is not None:
        held = line.correct(predicted.bytes.total)
        parts = replace(predicted.bytes, workspace=predicted.bytes.workspace + held - predicted.bytes.total)
        spread = replace(predicted.spread, memory_low=line.residual, memory_high=line.residual)
        predicted = replace(predicted, bytes=parts, spread=spread)
    return PlanPrediction(predicted=predicted, hardware=hardware)
