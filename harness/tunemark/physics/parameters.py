"""Parameters of a Llama- or Mistral-style decoder by role: no biases, gated MLP, RMSNorm, grouped-query attention.

Sources: Touvron et al. 2023, "LLaMA", section 2.2 (gated MLP, RMSNorm); Ainslie et al. 2023, "GQA";
Jiang et al. 2023, "Mistral 7B", table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunemark.plugin.descriptors import Architecture


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """Counts by role, each parameter once: `head` is 0 where it is tied to the embedding."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.mlp + self.norm + self.head


def parameters(a: Architecture) -> Parameters:
    """Count the parameters of `a`."""
    queries = a.num_attention_heads * a.head_dim
    keys = a.num_key_value_heads * a.head_dim
    # Projections of queries and of the output, then of keys and of values.
    attention = 2 * a.hidden_size * queries + 2 * a.hidden_size * keys
    # Gate, up and down.
    mlp = 3 * a.hidden_size * a.intermediate_size
    embedding = a.vocab_size * a.hidden_size
    return Parameters(
        embedding=embedding,
        attention=a.num_hidden_layers * attention,
        mlp=a.num_hidden_layers * mlp,
        # Two in each layer and the last one.
        norm=(2 * a.num_hidden_layers + 1) * a.hidden_size,
        head=0 if a.tie_word_embeddings else embedding,
    )
