"""What a model costs, from its dimensions alone: parameters, FLOPs per token, a floor of memory. Pure arithmetic."""

from tunemark.physics.flops import mean_visible_keys as mean_visible_keys
from tunemark.physics.flops import train_flops_per_token as train_flops_per_token
from tunemark.physics.memory import memory_floor_bytes as memory_floor_bytes
from tunemark.physics.parameters import Parameters as Parameters
from tunemark.physics.parameters import parameters as parameters
