"""What a layout of ranks takes, predicted from dimensions: a plan's seconds by part and its bytes by category.

The way in: `of_plan(plan)` or `express(row)` give a `Workload` and a `Layout`, `device_facts(chip)` a `DeviceFacts`
(what is calibrated on a machine replaces its `efficiency`), and `predict(work, layout, device)` a `Prediction`.
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
