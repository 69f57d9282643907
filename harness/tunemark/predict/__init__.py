"""Predict a training step from a model's dimensions and a layout of ranks: its time by part, its memory by category.

Entry points: `convert_plan(plan)` or `convert_row(row)` return a `Workload` and a `RankLayout`, `device_facts(chip)` a
`DeviceFacts` (a calibration on the machine replaces its `efficiency`), `predict(work, layout, device)` a `Prediction`.
"""

from tunemark.plugin.hardware import DeviceFacts as DeviceFacts
from tunemark.plugin.hardware import Efficiency as Efficiency
from tunemark.predict.chip_facts import device_facts as device_facts
from tunemark.predict.cost_model import find_layout_error as find_layout_error
from tunemark.predict.cost_model import predict as predict
from tunemark.predict.layout import RankLayout as RankLayout
from tunemark.predict.layout import Workload as Workload
from tunemark.predict.memory_model import predict_memory as predict_memory
from tunemark.predict.plan_conversion import convert_plan as convert_plan
from tunemark.predict.prediction import Prediction as Prediction
