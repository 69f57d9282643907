"""In the worker: the attention mask of rows that hold several documents, so that none attends to another."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch
import transformers

# Since transformers 4.53 a model with several layer types takes a mask per type; before, its sliding layers applied
# their window to the one mask themselves.
_TAKES_MASK_PER_TYPE = hasattr(transformers, "masking_utils")


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
    """Additive mask [B, 1, S, S]: 0 where the key is in the query's document, not later and within the window.

    Padding attends to padding, so that no softmax row is empty."""
    sequence = document_ids.shape[1]
    index = torch.arange(sequence, device=document_ids.device)
    distance = index[:, None] - index[None, :]
    near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    visible = (document_ids[:, :, None] == document_ids[:, None, :]) & near
    mask = torch.zeros(visible.shape, dtype=dtype, device=document_ids.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
