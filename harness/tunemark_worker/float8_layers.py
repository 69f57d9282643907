"""Linear modules of the layers whose products are in 8-bit floats, by torchao: weights, gradients and all else stay as
they were. Source of the recipes: Micikevicius et al. 2022, "FP8 Formats for Deep Learning"; pytorch/ao, torchao/float8.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, Set, Tuple

import torch

from tunemark_worker.decoder import find_layers

# The first compute capability of NVIDIA's chips with such products, and AMD's architectures: MI300 and later.
NVIDIA_CAPABILITY = (8, 9)
AMD_ARCHITECTURES = ("gfx94", "gfx95")
# The recipe of products scaled by blocks, which NVIDIA's chips of compute capability 10 have.
MX = "mx"


def convert_layers(module: torch.nn.Module, recipe: str, device: str) -> int:
    """Convert every linear module of the layers in place and return how many there are. recipe: torchao's name, by
    which values are scaled: "tensorwise" or "rowwise"; or "mx", by blocks of 32. ValueError for a device without such
    products, or a model that torchao left other than asked. On the device "cpu" products are emulated: for tests, since
    it saves nothing."""
    if device != "cpu":
        _check_device(device, recipe)
    layers: Any = find_layers(module)
    inside = {each for layer in layers or () for each in layer.modules() if type(each) is torch.nn.Linear}
    if not inside:
        raise ValueError("{} has no linear modules in layers".format(type(module).__name__))
    kind = _convert_by_blocks(module, inside, device) if recipe == MX else _convert(module, inside, recipe, device)
    count = sum(type(each).__name__ == kind for each in module.modules())
    if count != len(inside):
        raise ValueError("torchao converted {} of {} linear modules".format(count, len(inside)))
    return count


def _convert(module: torch.nn.Module, inside: Set[Any], recipe: str, device: str) -> str:
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # heavy, and needed for this alone

    config: Any = Float8LinearConfig.from_recipe_name(recipe)
    if device == "cpu":
        config = dataclasses.replace(config, emulate=True)
    convert_to_float8_training(module, module_filter_fn=lambda each, path: each in inside, config=config)
    return "Float8Linear"


def _convert_by_blocks(module: torch.nn.Module, inside: Set[Any], device: str) -> str:
    """By torchao's prototype, as its README has it (torchao/prototype/mx_formats). Not run on hardware."""
    formats: Any = importlib.import_module("torchao.prototype.mx_formats")
    quantization: Any = importlib.import_module("torchao.quantization")
    if not hasattr(formats, "MXLinearConfig"):
        raise ValueError("this torchao has no MXLinearConfig, by which 0.13 trains in mxfp8")
    config = formats.MXLinearConfig.from_recipe_name("mxfp8_emulated" if device == "cpu" else "mxfp8_cublas")
    quantization.quantize_(module, config, filter_fn=lambda each, path: each in inside)
    return "MXLinear"


def _check_device(device: str, recipe: str) -> None:
    found: Any = torch.cuda.get_device_properties(device)
    if recipe == MX and (torch.version.hip or found.major != 10):
        raise ValueError("{} has no products of 8-bit floats scaled by blocks".format(found.name))
    if torch.version.hip:
        has_products = str(found.gcnArchName).startswith(AMD_ARCHITECTURES)
    else:
        capability: Tuple[int, int] = (found.major, found.minor)
        has_products = capability >= NVIDIA_CAPABILITY
    if not has_products:
        raise ValueError("{} has no products of 8-bit floats".format(found.name))
