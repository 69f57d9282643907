"""Predict a training step from a model's dimensions and a layout of ranks: its time by part, its memory by category.

Entry points: `convert_plan(plan)` or `convert_row(row)` return a `Workload` and a `RankLayout`, `device_facts(chip)` a
`DeviceFacts` (a calibration on the machine replaces its `efficiency`), `predict(work, layout, device)` a `Prediction`.
"""

from tunemark.predict.analytic import impossible as impossible
from tunemark.predict.analytic import memory as memory
from tunemark.predict.analytic import predict as predict
from tunemark.predict.facts import device_facts as device_facts
from tunemark.predict.layout import Layout as Layout
from tunemark.predict.layout import Stack as Stack
from tunemark.predict.layout import Workload as Workload
from tunemark.predict.machine import DeviceFacts as DeviceFacts
from tunemark.predict.machine import Efficiency as Efficiency
from tunemark.predict.planned import of_plan as of_plan
from tunemark.predict.prediction import Prediction as Prediction
