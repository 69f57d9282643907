"""What a layout of ranks takes, predicted from dimensions: a plan's seconds by part and its bytes by category."""

from tunemark.predict.analytic import impossible as impossible
from tunemark.predict.analytic import memory as memory
from tunemark.predict.analytic import predict as predict
from tunemark.predict.layout import Layout as Layout
from tunemark.predict.layout import Workload as Workload
from tunemark.predict.machine import DeviceFacts as DeviceFacts
from tunemark.predict.machine import Efficiency as Efficiency
from tunemark.predict.prediction import Prediction as Prediction
