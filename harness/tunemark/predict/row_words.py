"""Words that published tables use for precisions, recomputation and adapted matrices, in terms of the cost model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tunemark.physics.chip_peaks import parse_precision
from tunemark.predict.layout import Recompute
from tunemark.predict.matrix_products import LOW_PRECISIONS
from tunemark.predict.row_cells import RowError

# Recipes of 8 and 4 bits, by what a name contains; scales by blocks cost what scales by rows do.
_RECIPES: tuple[tuple[str, str], ...] = (
    ("mxfp8", r"mxfp8|fp8-?mx"),
    ("nvfp4", r"nvfp4|mxfp4|(?:fp|float)4"),
    ("fp8-rowwise", r"(?:fp8|float8).*(?:row|block|sub-?channel|-bs\b|-sc\b)"),
    ("fp8", r"(?:fp8|float8)(?:-(?:delayed|current|tensor|hybrid|e4m3|e5m2|cs|ds|te|per-tensor)|$)"),
)
# Bits of frozen weights, where the precision's cell states them in place of that of the products.
_BASES = re.compile(r"nf4|int4|4-?bit")


def read_precision(stated: str) -> tuple[str, str]:
    """(the precision of matrix products, its recipe) of a cell such as "bf16", "MXFP8" or "FP8 delayed scaling"."""
    word = re.sub(r"[^a-z0-9]+", "-", stated.lower()).strip("-")
    if _BASES.fullmatch(word):
        raise RowError(f"precision is {stated!r}, which is that of frozen weights: base_bits is 4, precision bf16")
    name = parse_precision(stated)
    if name is None or name in ("fp8", "fp4"):
        recipe = next((recipe for recipe, pattern in _RECIPES if re.search(pattern, word)), None)
        is_mixed = re.search(r"bf16|fp16", word) is not None
        if recipe is None or is_mixed:
            if name is None:
                raise RowError(f"no precision {stated!r} is known")
            return name, name
        return ("fp4" if recipe == "nvfp4" else "fp8"), recipe if recipe in LOW_PRECISIONS else "fp8"
    return name, name


class StatedRecomputation(NamedTuple):
    """What is computed again, and of which share of the layers."""

    kind: Recompute
    share: float = 1.0


# In the order in which they decide.
_RECOMPUTATION: tuple[tuple[Recompute, str], ...] = (
    ("none", r"none|n|false|no|off|0|no-(?:re)?(?:compute|computation|checkpointing|remat)"),
    ("selective", r"selective.*|.*(?:att(?:entio)?n|softmax|norm|act\b|moe|mlp|swiglu|gelu|per-op|dot|minimal).*"),
    ("full", r"full|y|true|yes|1|on|block|uniform|layer|full-block|remat|(?:yes|remat|uniform|block|layer)-full"),
)


def read_checkpointing(stated: str, layers: int) -> StatedRecomputation:
    """The recomputation of a cell such as "full", "full (21 layers)", "every 2" or "core_attn"."""
    word = re.sub(r"[^a-z0-9]+", "-", stated.lower()).strip("-")
    if match := re.fullmatch(r"(?:selective-)?every-(\d+)(?:-?(?:nd|rd|th))?(?:-layers?)?", word):
        return StatedRecomputation("full", 1.0 / max(int(match[1]), 1))
    share = 1.0
    if match := re.fullmatch(r"(full|block|uniform|layer)-(\d+)(?:-of-\d+)?(?:-layers?)?", word):
        word = match[1]
        # Megatron's "uniform" states the layers of one checkpoint, all the others how many layers are recomputed.
        share = 1.0 if word == "uniform" else min(1.0, int(match[2]) / layers)
    for kind, pattern in _RECOMPUTATION:
        if re.fullmatch(pattern, word):
            return StatedRecomputation(kind, share)
    raise RowError(f"no checkpointing {stated!r} is known: none, selective or full")


_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
# By other names: Megatron's, llama's, fused ones.
_MATRICES: Mapping[str, tuple[str, ...]] = {
    "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj",), "out": ("o_proj",),
    "wq": ("q_proj",), "wk": ("k_proj",), "wv": ("v_proj",), "wo": ("o_proj",), "dense": ("o_proj",),
    "linear_proj": ("o_proj",), "output_proj": ("o_proj",),
    "qkv": ("q_proj", "k_proj", "v_proj"), "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "linear_qkv": ("q_proj", "k_proj", "v_proj"), "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"), "w_pack": ("q_proj", "k_proj", "v_proj"), "wqkv": _ATTENTION[:3],
    "gate": ("gate_proj",), "up": ("up_proj",), "down": ("down_proj",),
    "w1": ("gate_proj",), "w3": ("up_proj",), "w2": ("down_proj",),
    "linear_fc1": ("gate_proj", "up_proj"), "gate_up_proj": ("gate_proj", "up_proj"), "linear_fc2": ("down_proj",),
    "attention": _ATTENTION, "attn": _ATTENTION, "att": _ATTENTION, "self_attn": _ATTENTION,
    "mlp": ("gate_proj", "up_proj", "down_proj"), "ffn": ("gate_proj", "up_proj", "down_proj"),
}  # fmt: skip


def read_matrices(stated: str, every: Sequence[str]) -> tuple[str, ...]:
    """The matrices that adapters are on, in any common spelling: "all-linear", "q,v", "q_proj+v_proj", "attention",
    "linear_qkv". every: the names of the model's own, which have the last word."""
    if re.fullmatch(r"all(?:[ -_]linear)?(?:[ -_]layers)?", stated):
        return tuple(every)
    found: list[str] = []
    for word in re.split(r"[\s,+/;&]+", re.sub(r"\b(?:only|and|layers?)\b", " ", stated)):
        name = word.rpartition(".")[2]
        if not name:
            continue
        # A model's own matrix may be fused of several, and an MLP may have no gate.
        parts = (name,) if name in every else _MATRICES.get(name, ())
        known = [each for each in every if each in parts or (parts != (name,) and _holds(each, parts))]
        found += known or [name]
    return tuple(dict.fromkeys(found))


def _holds(fused: str, parts: Sequence[str]) -> bool:
    """Whether a fused matrix of a model is one of those that a name stands for."""
    return any(part in _MATRICES.get(fused, ()) for part in parts)
