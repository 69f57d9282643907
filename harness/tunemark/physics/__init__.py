"""Costs of a model from its dimensions: parameters, FLOPs per token, a lower bound on memory; and tables of chips' peak
rates and links. Pure arithmetic."""

from tunemark.physics.chip_peaks import explain_missing_peak as explain_missing_peak
from tunemark.physics.chip_peaks import find_chip as find_chip
from tunemark.physics.chip_peaks import find_peak as find_peak
from tunemark.physics.chip_peaks import parse_precision as parse_precision
from tunemark.physics.flops import ALL_WEIGHTS as ALL_WEIGHTS
from tunemark.physics.flops import SlotFlops as SlotFlops
from tunemark.physics.flops import TrainedWeights as TrainedWeights
from tunemark.physics.flops import count_slot_flops as count_slot_flops
from tunemark.physics.flops import hardware_flops_per_token as hardware_flops_per_token
from tunemark.physics.flops import lora_trained_weights as lora_trained_weights
from tunemark.physics.flops import mean_visible_keys as mean_visible_keys
from tunemark.physics.flops import train_flops_by_convention as train_flops_by_convention
from tunemark.physics.flops import train_flops_by_role as train_flops_by_role
from tunemark.physics.flops import train_flops_per_token as train_flops_per_token
from tunemark.physics.flops import weight_norm_flops as weight_norm_flops
from tunemark.physics.memory_floor import NF4_BYTES as NF4_BYTES
from tunemark.physics.memory_floor import memory_floor_bytes as memory_floor_bytes
from tunemark.physics.parameters import LORA_TARGETS as LORA_TARGETS
from tunemark.physics.parameters import adaptable_matrices as adaptable_matrices
from tunemark.physics.parameters import count_layer_matrices as count_layer_matrices
from tunemark.physics.parameters import count_lora_parameters as count_lora_parameters
from tunemark.physics.parameters import count_parameters as count_parameters
from tunemark.physics.parameters import make_architecture as make_architecture
