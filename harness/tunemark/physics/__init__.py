"""Costs of a model from its dimensions: parameters, FLOPs per token, a lower bound on memory; and tables of chips' peak
rates and links. Pure arithmetic."""

from tunemark.physics.chips import Chip as Chip
from tunemark.physics.flops import CONVENTIONS as CONVENTIONS
from tunemark.physics.flops import EVERYTHING as EVERYTHING
from tunemark.physics.flops import Flops as Flops
from tunemark.physics.flops import Trained as Trained
from tunemark.physics.flops import hardware_flops_per_token as hardware_flops_per_token
from tunemark.physics.flops import lora as lora
from tunemark.physics.flops import mean_visible_keys as mean_visible_keys
from tunemark.physics.flops import train_flops_by_convention as train_flops_by_convention
from tunemark.physics.flops import train_flops_by_role as train_flops_by_role
from tunemark.physics.flops import train_flops_per_token as train_flops_per_token
from tunemark.physics.memory import memory_floor_bytes as memory_floor_bytes
from tunemark.physics.parameters import LORA_TARGETS as LORA_TARGETS
from tunemark.physics.parameters import Parameters as Parameters
from tunemark.physics.parameters import from_dimensions as from_dimensions
from tunemark.physics.parameters import linear_names as linear_names
from tunemark.physics.parameters import lora_parameters as lora_parameters
from tunemark.physics.parameters import parameters as parameters
from tunemark.physics.peaks import Peak as Peak
from tunemark.physics.peaks import find_chip as find_chip
from tunemark.physics.peaks import peak as peak
from tunemark.physics.peaks import precision_of as precision_of
from tunemark.physics.peaks import why_no_peak as why_no_peak
