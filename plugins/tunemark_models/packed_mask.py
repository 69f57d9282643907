"""In the worker: the attention mask of rows that hold several documents, so that none attends to another."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

import torch
import transformers

from tunemark_models.document_attention import encode_spans

# Since transformers 4.53 a model with several layer types takes a mask per type; before, its sliding layers applied
# their window to the one mask themselves.
_TAKES_MASK_PER_TYPE = hasattr(transformers, "masking_utils")


# How a family keeps documents apart. positions: transformers finds them by positions that restart, and makes the masks
# of each of its layers (4.53 and newer); lengths: with the documents' numbers too, from which kernels of state-space
# models restart their state; boolean, additive: masks are passed, of which attention in one operator takes
# the first in every precision, and attention in several operators the second.
# `call_packed` also knows "documents": attention by documents, where the module was built for it.
WAYS = ("positions", "lengths", "boolean", "additive") if _TAKES_MASK_PER_TYPE else ("boolean", "additive")


def call_packed(
    module: Any, config: Any, input_ids: torch.Tensor, document_ids: torch.Tensor, positions: torch.Tensor, way: str
) -> torch.Tensor:
    """The scores of rows that hold several documents, kept apart in one of `WAYS`. config: the module's."""
    named: Dict[str, Any] = {"input_ids": input_ids, "position_ids": positions, "use_cache": False}
    if way == "lengths":
        named["seq_idx"] = document_ids.to(torch.int32)
    elif way == "boolean":
        named["attention_mask"] = _by_type(config, lambda window: find_visible_keys(document_ids, window)[:, None])
    elif way == "additive":
        named["attention_mask"] = _by_type(config, lambda window: make_packed_mask(document_ids, window, torch.float32))
    elif way == "documents":
        named["attention_mask"] = _by_type(config, lambda window: encode_spans(document_ids, window))
    elif way != "positions":
        raise ValueError("documents are kept apart by {}, not {!r}".format(", ".join(WAYS), way))
    scores: torch.Tensor = module(**named).logits
    return scores


def _by_type(config: Any, make: Callable[[Optional[int]], torch.Tensor]) -> Any:
    """The mask that `make` makes for a window, for each type of layer where the configuration has several."""
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    if not kinds:
        return make(window if isinstance(window, int) else None)
    if "sliding_attention" not in kinds or not _TAKES_MASK_PER_TYPE:
        return make(None)
    return {"full_attention": make(None), "sliding_attention": make(window)}


def choose_packed_mask(document_ids: torch.Tensor, architecture: Dict[str, Any], dtype: torch.dtype) -> Any:
    """The mask as the model takes it: one, or one for each type of layer."""
    window, kinds = architecture.get("sliding_window"), architecture.get("layer_types")
    if kinds is None:
        return make_packed_mask(document_ids, window, dtype)
    full = make_packed_mask(document_ids, None, dtype)
    if "sliding_attention" not in kinds or not _TAKES_MASK_PER_TYPE:
        return full
    return {"full_attention": full, "sliding_attention": make_packed_mask(document_ids, window, dtype)}


def make_packed_mask(document_ids: torch.Tensor, window: Optional[int], dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, S, S]: 0 where the key is in the query's document, not later and within the window."""
    visible = find_visible_keys(document_ids, window)
    mask = torch.zeros(visible.shape, dtype=dtype, device=document_ids.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def find_visible_keys(document_ids: torch.Tensor, window: Optional[int]) -> torch.Tensor:
    """Whether a query sees a key [B, S, S]. Padding attends to padding, so that no softmax row is empty."""
    sequence = document_ids.shape[1]
    index = torch.arange(sequence, device=document_ids.device)
    distance = index[:, None] - index[None, :]
    near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return (document_ids[:, :, None] == document_ids[:, None, :]) & near
