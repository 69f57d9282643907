"""In the worker: attention by documents, without a mask of every query and key.

A packed row costs the sum of the squares of its documents' lengths, with a window the product of lengths and window.

transformers calls `attend` in place of its own attention, for families that look theirs up by name (release 4.53 and
newer). Where the documents lie comes to it as the model's mask, which the family's code passes on unread.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch

# transformers' name for it.
IMPLEMENTATION = "tunemark_documents"


class DocumentSpans(NamedTuple):
    """Where documents lie in a batch. lengths: for each row, of its documents in order; padding follows the last.
    window: tokens that a query sees, itself included; None for all before it."""

    lengths: List[List[int]]
    window: Optional[int]


def register() -> None:
    """Make transformers know `IMPLEMENTATION`; ValueError in a release that has no way to."""
    try:
        from transformers import AttentionInterface, masking_utils  # noqa: F401 - since 4.53 masks pass unread
    except ImportError as error:
        raise ValueError("attention by documents needs transformers 4.53 or newer") from error
    interface: Any = AttentionInterface
    interface.register(IMPLEMENTATION, attend)


def encode_spans(document_ids: torch.Tensor, window: Optional[int]) -> torch.Tensor:
    """The documents of a batch as a mask for `attend`: int64 [1, 1, 1 + documents, 2] on the host. The first pair is
    the window, 0 without one, and the number of rows; the others are a document's row and length.

    document_ids: [micro_batch, sequence], -1 in padding on the right."""
    rows = document_ids.cpu()
    pairs = [[window or 0, len(rows)]]
    for number, row in enumerate(rows):
        kept = row[row >= 0]
        pairs += [[number, length] for length in torch.unique_consecutive(kept, return_counts=True)[1].tolist()]
    return torch.tensor(pairs, dtype=torch.int64)[None, None]


def decode_spans(mask: torch.Tensor) -> DocumentSpans:
    """The documents of a mask that `encode_spans` made."""
    (window, rows), *pairs = mask[0, 0].tolist()
    lengths: List[List[int]] = [[] for _ in range(rows)]
    for row, length in pairs:
        lengths[row].append(length)
    return DocumentSpans(lengths, window or None)


# Long: the parameters are those with which transformers calls every attention.
def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    scaling: Optional[float] = None,
    dropout: float = 0.0,
    sliding_window: Optional[int] = None,
    softcap: Optional[float] = None,
    s_aux: Optional[torch.Tensor] = None,
    **unused: Any,
) -> Tuple[torch.Tensor, None]:
    """Causal attention within each document: [micro_batch, sequence, heads, head_dim], zeros in padding.

    query: [micro_batch, heads, sequence, head_dim]; key and value may have fewer heads. attention_mask: of
    `encode_spans`; None where each row is one document. softcap: limit of the scores. s_aux: a score for each head that
    every query gives to nothing."""
    batch, _, sequence, _ = query.shape
    if attention_mask is None:
        spans = DocumentSpans([[sequence]] * batch, sliding_window)
    else:
        spans = decode_spans(attention_mask)
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    rows = []
    for lengths, *tensors in zip(spans.lengths, *(torch.split(each, 1) for each in (query, key, value))):
        rows.append(_attend_row(lengths, tensors, spans.window, scaling, softcap, s_aux))
    return torch.cat(rows), None


def _attend_row(
    lengths: Sequence[int],
    tensors: Sequence[torch.Tensor],
    window: Optional[int],
    scaling: Optional[float],
    softcap: Optional[float],
    sinks: Optional[torch.Tensor],
) -> torch.Tensor:
    """[1, sequence, heads, head_dim] of one row."""
    padding = tensors[0].shape[2] - sum(lengths)
    sizes = [*lengths, padding] if padding else list(lengths)
    # The gradient of a split is one concatenation; that of slices would be a tensor of the whole row for each.
    parts = zip(*(torch.split(each, sizes, dim=2) for each in tensors))
    outputs = []
    for number, (q, k, v) in enumerate(parts):
        if number == len(lengths):
            # Values can be narrower than queries, as in latent attention.
            outputs.append(torch.zeros_like(v))
        elif softcap is not None or sinks is not None:
            outputs.append(_attend_by_products(q, k, v, window, scaling, softcap, sinks))
        else:
            outputs.append(_attend_in_blocks(q, k, v, window, scaling))
    return torch.cat([each.transpose(1, 2) for each in outputs], dim=1)


def _attend_in_blocks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: Optional[int], scaling: Optional[float]
) -> torch.Tensor:
    """Attention within one document, by blocks of the window where the document is longer."""
    attention = torch.nn.functional.scaled_dot_product_attention
    length = q.shape[2]
    if window is None or length <= window:
        return attention(q, k, v, is_causal=True, scale=scaling)
    blocks = []
    for first in range(0, length, window):
        last, before = min(first + window, length), max(first - window + 1, 0)
        queries = torch.arange(first, last, device=q.device)[:, None]
        distance = queries - torch.arange(before, last, device=q.device)[None]
        visible = (distance >= 0) & (distance < window)
        blocks.append(
            attention(q[:, :, first:last], k[:, :, before:last], v[:, :, before:last], attn_mask=visible, scale=scaling)
        )
    return torch.cat(blocks, dim=2)


def _attend_by_products(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    window: Optional[int],
    scaling: Optional[float],
    softcap: Optional[float],
    sinks: Optional[torch.Tensor],
) -> torch.Tensor:
    """Attention within one document, product by product, for scores that torch's single operator does not know."""
    scores = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    index = torch.arange(q.shape[2], device=q.device)
    distance = index[:, None] - index[None]
    visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[2]] @ v
