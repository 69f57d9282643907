"""Activation checkpointing: the same gradients, and exactly so much computed again as its name says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from tunemark_worker import activation_checkpointing
from tunemark_worker.decoder import find_decoder_parts

LAYERS = 3


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.name()] += 1
        return func(*args, **(kwargs or {}))


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        use_cache=False,
    )
    return LlamaForCausalLM(config).train()


def _trained(choice: str) -> tuple[list[torch.Tensor], int, int]:
    """Gradients, and how often weights and attention multiplied, forward and backward."""
    model = _model()
    assert activation_checkpointing.checkpoint_layers(model, choice) == (0 if choice == "none" else LAYERS)
    ids = torch.arange(14).reshape(2, 7)
    with _Counting() as counted:
        model(input_ids=ids).logits.square().sum().backward()
    attention = sum(n for name, n in counted.calls.items() if "scaled_dot_product" in name and "backward" not in name)
    return [p.grad for p in model.parameters() if p.grad is not None], counted.calls["aten::mm"], attention


def test_gradients_are_the_same_and_what_is_computed_again_is_counted() -> None:
    plain, products, attention = _trained("none")
    assert attention == LAYERS
    for choice, more in (("full", 6 * LAYERS), ("selective", 0)):
        gradients, again, attended = _trained(choice)
        assert all(torch.equal(a, b) for a, b in zip(plain, gradients, strict=True))
        # Seven matrices multiply in each layer: queries, keys, values, output, gate, up and down. The last one's output
        # is the layer's, which backward does not need: torch stops before it.
        assert again - products == more, choice
        assert attended == 2 * LAYERS, choice


def test_what_has_no_layers_cannot_be_checkpointed() -> None:
    with pytest.raises(ValueError, match="no list of layers"):
        activation_checkpointing.checkpoint_layers(torch.nn.Linear(2, 2), "full")
    with pytest.raises(ValueError, match="one of none, selective, full"):
        activation_checkpointing.checkpoint_layers(_model(), "some")


def test_the_parts_of_a_decoder_are_found() -> None:
    parts = find_decoder_parts(_model())
    assert (parts.base_name, parts.layers_name, parts.embedding) == ("model", "layers", "embed_tokens")
    assert (parts.norm, parts.head, parts.positions, parts.is_tied) == ("norm", "lm_head", [], False)
    with pytest.raises(ValueError, match="no list of layers"):
        find_decoder_parts(torch.nn.Linear(2, 2))
