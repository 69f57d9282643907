"""The fine-tuning method: train all weights, or LoRA adapters from peft, added before any strategy is applied. With
qlora the frozen matrices have been quantized before (`quantized_base`)."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import torch

from tunemark_worker.decoder import find_layers


def apply_method(
    name: str, options: Dict[str, Any], module: torch.nn.Module, architecture: Optional[Dict[str, Any]] = None
) -> None:
    """Prepare the module for the method: lora freezes its weights and adds adapters to the linear modules of its layers
    whose name, the last part of the path, is among `targets`. architecture: the assignment's, whose `idle_modules`,
    by the number of the layer and the path in it, get none.

    Adapters have the dtype of the matrix they adapt, beside one of 4 bits that of other weights, and no dropout.
    options: r, alpha and targets; rslora: scaled by alpha / sqrt(r); dora: each row of an adapted matrix has a trained
    magnitude, whose divisor is no part of the backward pass.
    Sources: Hu et al. 2021, "LoRA", section 4.1; Kalajdzievski 2023, equation 3; Liu et al. 2024, "DoRA", section 4.3.
    """
    if name == "full":
        return
    if name not in ("lora", "qlora"):
        raise ValueError("the method is 'full', 'lora' or 'qlora', not {!r}".format(name))
    import peft  # heavy, and needed for this method alone

    # Only what is asked for: older releases of peft do not know all of these.
    variants: Dict[str, Any] = {"use_" + key: True for key in ("rslora", "dora") if options.get(key)}
    config = peft.LoraConfig(
        r=options["r"],
        lora_alpha=options["alpha"],
        target_modules=find_targets(module, options["targets"], (architecture or {}).get("idle_modules", ())),
        lora_dropout=0.0,
        bias="none",
        # GPT-2 stores its matrices transposed.
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in module.modules()),
        **variants,
    )
    if name == "qlora":
        # By this peft knows that there are matrices of 4 bits. Their adapters it makes in float32.
        module.is_loaded_in_4bit = True  # type: ignore[assignment]  # an attribute, not a module
        dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    peft.inject_adapter_in_model(config, module)
    if name == "qlora":
        del module.is_loaded_in_4bit
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
    trained = [n for n, p in module.named_parameters() if p.requires_grad]
    if not trained or any("lora_" not in n for n in trained):
        raise ValueError("peft {} left weights other than the adapters trainable".format(peft.__version__))


def find_targets(module: torch.nn.Module, names: Sequence[str], idle: Sequence[str] = ()) -> List[str]:
    """The paths of the linear modules in the layers that have one of the names; ValueError for a name without any.

    idle: modules that the model never calls, as "LAYER.PATH": an adapter of these would get no gradient."""
    layers: Any = find_layers(module)
    inside = {each for layer in layers for each in layer.modules()} if layers is not None else set()
    for number, _, path in (each.partition(".") for each in idle):
        inside.discard(layers[int(number)].get_submodule(path))
    found = {
        path: path.rpartition(".")[2] for path, each in module.named_modules() if each in inside and is_adaptable(each)
    }
    missing = [name for name in names if name not in found.values()]
    if missing:
        raise ValueError("no linear module in {}'s layers is named {}".format(type(module).__name__, missing[0]))
    return [path for path, name in found.items() if name in names]


def is_adaptable(module: torch.nn.Module) -> bool:
    """Whether it is a linear module, of torch or of a family. Some routers are of torch's class and return a pair."""
    name = type(module).__name__
    return name == "Conv1D" or (isinstance(module, torch.nn.Linear) and name.endswith(("Linear", "Linear4bit")))


def merge_adapters(module: torch.nn.Module) -> None:
    """Add every adapter's product to the matrix it adapts and remove the adapter."""
    adapted: List[str] = [name for name, each in module.named_modules() if hasattr(each, "lora_A")]
    for name in adapted:
        parent, _, attribute = name.rpartition(".")
        layer: Any = module.get_submodule(name)
        layer.merge()
        setattr(module.get_submodule(parent), attribute, layer.get_base_layer())
