"""The fine-tuning method: train all weights, or LoRA adapters from peft, added before any strategy is applied."""

from __future__ import annotations

from typing import Any, Dict, List

import torch


def apply_method(name: str, options: Dict[str, Any], module: torch.nn.Module) -> None:
    """Prepare the module for the method: lora freezes its weights and adds adapters to the modules named `targets`.

    Adapters have the dtype of the matrix they adapt, and no dropout.
    Source: Hu et al. 2021, "LoRA", section 4.1.
    """
    if name == "full":
        return
    if name != "lora":
        raise ValueError("the method is 'full' or 'lora', not {!r}".format(name))
    import peft  # heavy, and needed for this method alone

    config = peft.LoraConfig(
        r=options["r"],
        lora_alpha=options["alpha"],
        target_modules=list(options["targets"]),
        lora_dropout=0.0,
        bias="none",
        # GPT-2 stores its matrices transposed.
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in module.modules()),
    )
    peft.inject_adapter_in_model(config, module)
    trained = [n for n, p in module.named_parameters() if p.requires_grad]
    if not trained or any("lora_" not in n for n in trained):
        raise ValueError("peft {} left weights other than the adapters trainable".format(peft.__version__))


def merge_adapters(module: torch.nn.Module) -> None:
    """Add every adapter's product to the matrix it adapts and remove the adapter."""
    adapted: List[str] = [name for name, each in module.named_modules() if hasattr(each, "lora_A")]
    for name in adapted:
        parent, _, attribute = name.rpartition(".")
        layer: Any = module.get_submodule(name)
        layer.merge()
        setattr(module.get_submodule(parent), attribute, layer.get_base_layer())
