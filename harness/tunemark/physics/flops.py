"""Model FLOPs of training: what the arithmetic needs, whatever the hardware truly does.

Source: Chowdhery et al. 2022, "PaLM", appendix B, where attention is counted in full; Dao 2023, "FlashAttention-2",
section 4.1, where the causal half alone is.
"""

from __future__ import annotations

from typing import Literal

from tunemark.physics.parameters import parameters
from tunemark.plugin.descriptors import Architecture

Attention = Literal["causal", "full"]


def train_flops_per_token(a: Architecture, sequence: int, attention: Attention = "causal") -> float:
    """Model FLOPs to train on one slot of a sequence: forward plus backward, nothing recomputed.

    6 per matmul parameter (2 forward, 4 backward), plus attention's scores and values,
    12 · layers · heads · head_dim · mean visible keys. Embedding look-ups are free; the output head is not,
    tied or untied. "causal" counts the keys that the mask and the window leave, "full" all of the sequence, as in
    most published figures.
    """
    count = parameters(a)
    matmul = count.attention + count.mlp + a.vocab_size * a.hidden_size
    keys = mean_visible_keys(sequence, a.sliding_window) if attention == "causal" else float(sequence)
    return 6 * matmul + 12 * a.num_hidden_layers * a.num_attention_heads * a.head_dim * keys


def mean_visible_keys(sequence: int, window: int | None) -> float:
    """Keys that a query sees under a causal mask, itself included, averaged over the sequence: sum of min(i, w) / S."""
    w = sequence if window is None else min(window, sequence)
    # The first w queries see 1, 2 ... w keys, the others w each.
    return (w * (w + 1) / 2 + (sequence - w) * w) / sequence
