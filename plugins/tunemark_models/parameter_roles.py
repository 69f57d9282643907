"""The role of a parameter in a decoder, by the modules that hold it: what transformers' families have in common."""

from __future__ import annotations

import re

import torch

# Names of what mixes tokens: attention, linear attention, state spaces, recurrences and short convolutions.
_MIXER = re.compile(r"att|mixer|mamba|ssm|conv|temporal|recurrent|rwkv|lstm|delta|indexer|time_|qkv|_proj$")
_MLP = re.compile(
    r"mlp|ffn|feed_?forward|expert|moe|fc\d|dense_|channel|block_sparse|^w[123]$|gate_proj|up_proj|down_proj"
)


def find_role(root: torch.nn.Module, name: str, *, is_in_layer: bool) -> str:
    """attention (or whatever else mixes tokens), mlp, router, bias, norm, embedding, position or head.

    name: of the parameter in `root`, which is a layer, or the model for what is outside the layers.
    """
    path, _, last = name.rpartition(".")
    owner = root.get_submodule(path) if path else root
    kind = type(owner).__name__.lower()
    if "norm" in kind or "norm" in last or re.search(r"(^|\.)ln_?\w*$", path):
        return "norm"
    if isinstance(owner, torch.nn.Embedding):
        is_position = re.search(r"pos|wpe", path) is not None and "token" not in path
        return "position" if is_position else "embedding"
    if last == "bias" or last.endswith("_bias"):
        return "bias"
    if _is_router(root, name):
        return "router"
    if not is_in_layer and not re.search(r"layers|blocks", path):
        return "head"
    parts = path.split(".")
    for each in parts:
        if _MLP.search(each) and not re.search(r"att|mixer", each):
            return "mlp"
        if _MIXER.search(each):
            return "attention"
    return "attention"


def _is_router(root: torch.nn.Module, name: str) -> bool:
    """Whether a part of the path is a gate or router beside experts."""
    parts = name.split(".")
    for i, each in enumerate(parts[:-1]):
        if each in ("gate", "router", "gate_proj_router", "classifier") or each.endswith("_router"):
            parent = root.get_submodule(".".join(parts[:i])) if i else root
            if any("expert" in child for child, _ in parent.named_children()) or each.endswith("router"):
                return True
    return False
