"""Activation checkpointing: a layer's activations are freed after forward and recomputed for backward.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". full: only each layer's input is kept, and
torch recomputes all but its last matrix product, whose output backward does not need.
selective: outputs of matrix products with weights are kept too; norms, activation functions and attention itself are
recomputed (in the sense of Korthikanti et al. 2022, section 5, who keep all but attention's own products).
"""

from __future__ import annotations

import functools
from typing import Any, Dict

import torch
from torch.utils.checkpoint import checkpoint

from tunemark_worker.decoder import find_layers
from tunemark_worker.training_settings import CHECKPOINTING

# Namespace of collectives, whose outputs are kept: communicating again costs more than the memory is worth.
_COLLECTIVES = "_c10d_functional"
# bitsandbytes' product with a matrix of 4 bits, since 0.50; before, it was torch's own.
_FOUR_BIT_PRODUCT = "bitsandbytes.gemm_4bit.default"


def checkpoint_layers(module: torch.nn.Module, choice: str) -> int:
    """Checkpoint each layer in place and return how many there are; ValueError if the model has no list of layers."""
    if choice == "none":
        return 0
    if choice not in CHECKPOINTING:
        raise ValueError("checkpointing is one of {}, not {!r}".format(", ".join(CHECKPOINTING), choice))
    layers = find_layers(module)
    if layers is None:
        raise ValueError("checkpointing works on layers, and {} has no list of layers".format(type(module).__name__))
    options: Dict[str, Any] = {"context_fn": _make_context_fn()} if choice == "selective" else {}
    for layer in layers:
        # Wraps the function, not the module, so that hooks of parallelization stay outside the checkpoint.
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, **options)
    return len(layers)


def _make_context_fn() -> Any:
    try:
        from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
    except ImportError:
        raise ValueError(
            "selective checkpointing needs torch 2.4 or newer, this is {}".format(torch.__version__)
        ) from None
    aten = torch.ops.aten
    # Not bmm: attention uses it if it is not one fused operator.
    kept = {aten.mm.default, aten.addmm.default, aten.linear.default, aten._scaled_mm.default}

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        if operator in kept or str(operator) == _FOUR_BIT_PRODUCT or getattr(operator, "namespace", "") == _COLLECTIVES:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return functools.partial(create_selective_checkpoint_contexts, policy)
