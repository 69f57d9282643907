"""Activation checkpointing: what a layer's forward pass gave is let go, and computed again for its backward pass.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". full: of each layer only the input is kept, and
torch computes again all but its last matrix product, whose output backward does not need.
selective: what matrix products with weights gave is kept too; norms, activations and attention itself are computed
again (in the sense of Korthikanti et al. 2022, section 5, who keep all but attention's own products).
"""

from __future__ import annotations

import functools
from typing import Any, Dict

import torch
from torch.utils.checkpoint import checkpoint

from tunemark_worker.decoder import layers_of

CHOICES = ("none", "selective", "full")
# Collective operations, whose outputs are kept: to compute is cheaper than to communicate again.
_COLLECTIVES = "_c10d_functional"


def apply(module: torch.nn.Module, choice: str) -> int:
    """Checkpoint each layer in place, and return how many; ValueError where the model has none."""
    if choice == "none":
        return 0
    if choice not in CHOICES:
        raise ValueError("checkpointing is one of {}, not {!r}".format(", ".join(CHOICES), choice))
    layers = layers_of(module)
    if layers is None:
        raise ValueError("checkpointing works on layers, and {} has no list of them".format(type(module).__name__))
    more: Dict[str, Any] = {"context_fn": _contexts()} if choice == "selective" else {}
    for layer in layers:
        # The function, not the module, so that parallelization's hooks on the layer stay outside.
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, **more)
    return len(layers)


def _contexts() -> Any:
    try:
        from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
    except ImportError:
        raise ValueError(
            "selective checkpointing needs torch 2.4 or newer, this is {}".format(torch.__version__)
        ) from None
    aten = torch.ops.aten
    # Not bmm: attention multiplies with it where it is not one operation.
    kept = {aten.mm.default, aten.addmm.default, aten.linear.default}

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        if operator in kept or getattr(operator, "namespace", "") == _COLLECTIVES:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return functools.partial(create_selective_checkpoint_contexts, policy)
