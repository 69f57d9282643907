"""What is trained of a model: everything, or low-rank adapters through peft, put in its place before any strategy."""

from __future__ import annotations

from typing import Any, Dict, List

import torch


def apply(name: str, options: Dict[str, Any], module: torch.nn.Module) -> None:
    """Change the module for the method: under lora its own weights are frozen and adapters stand beside `targets`.

    Adapters have the dtype of the matrix that they stand beside, and no dropout.
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
        # GPT-2 keeps its matrices the other way round.
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in module.modules()),
    )
    peft.inject_adapter_in_model(config, module)
    trained = [n for n, p in module.named_parameters() if p.requires_grad]
    if not trained or any("lora_" not in n for n in trained):
        raise ValueError("peft {} left other weights trainable than the adapters".format(peft.__version__))


def merge(module: torch.nn.Module) -> None:
    """Add every adapter's product to the matrix that it stands beside and take the adapter away."""
    adapted: List[str] = [name for name, each in module.named_modules() if hasattr(each, "lora_A")]
    for name in adapted:
        parent, _, own = name.rpartition(".")
        layer: Any = module.get_submodule(name)
        layer.merge()
        setattr(module.get_submodule(parent), own, layer.get_base_layer())
