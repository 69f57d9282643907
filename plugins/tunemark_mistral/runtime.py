"""Mistral in the worker: transformers' own MistralForCausalLM, with its attention through torch's SDPA.

Works with transformers 4.46 to 5.23.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, Optional

import torch
from transformers import MistralConfig, MistralForCausalLM

from tunemark_worker.batches import Batch
from tunemark_worker.contract import Assignment, Place
from tunemark_worker.optimizer import compute_dtype, parameter_dtype


class Mistral:
    """Builds the model in place: on its device, in its dtype, never a second copy of the weights."""

    def __init__(self) -> None:
        self._compute_dtype = torch.float32
        self._window: Optional[int] = None

    def build(self, assignment: Assignment, place: Place) -> torch.nn.Module:
        """weights: "random", or "pretrained:" and a folder or an id on the hub."""
        self._compute_dtype = compute_dtype(assignment.precision)
        self._window = assignment.architecture.get("sliding_window")
        dtype = parameter_dtype(assignment.precision)
        source, _, name = assignment.weights.partition(":")
        if source == "pretrained":
            # torch_dtype is the older name; 5.x still takes it, 4.46 does not know the newer one.
            module: torch.nn.Module = MistralForCausalLM.from_pretrained(
                name, torch_dtype=dtype, attn_implementation="sdpa", use_cache=False
            )
            _check(module.config, assignment.architecture, name)
            module = module.to(place.device)
        elif source == "random":
            with _default_dtype(dtype), torch.device(place.device):
                module = MistralForCausalLM(configuration(assignment.architecture))
        else:
            raise ValueError("weights are 'random' or 'pretrained:NAME', not {!r}".format(assignment.weights))
        return module

    def logits(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Padding is on the right, where causal attention cannot reach it from content: only packing needs a mask.
        Without one, transformers applies the sliding window itself."""
        if not batch.packed:
            return module(input_ids=batch.input_ids, use_cache=False).logits  # type: ignore[no-any-return]
        mask = packed_mask(batch.document_ids, self._window, self._compute_dtype)
        output = module(input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.positions, use_cache=False)
        return output.logits  # type: ignore[no-any-return]


def configuration(architecture: Dict[str, Any]) -> Any:
    """transformers' configuration of an architecture whose keys are `tunemark.plugin.Architecture`'s."""
    fields = {key: value for key, value in architecture.items() if key != "model_type"}
    # By a dict, because only the base class documents attn_implementation.
    return MistralConfig(**{**fields, "attn_implementation": "sdpa", "use_cache": False})


_DIMENSIONS = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "sliding_window",
]


def _check(config: Any, architecture: Dict[str, Any], name: str) -> None:
    """The rate and its FLOPs would be another model's."""
    differing = [
        "{} is {}, not {}".format(field, getattr(config, field, None), architecture[field])
        for field in _DIMENSIONS
        if getattr(config, field, None) != architecture[field]
    ]
    if differing:
        raise ValueError("the weights of {} are of another architecture: {}".format(name, ", ".join(differing)))


def packed_mask(document_ids: torch.Tensor, window: Optional[int], dtype: torch.dtype) -> torch.Tensor:
    """Additive mask [B, 1, S, S]: 0 where a query sees a key of its own document, not later, within the window.

    Padding sees padding, so that no row of the softmax is empty."""
    sequence = document_ids.shape[1]
    at = torch.arange(sequence, device=document_ids.device)
    distance = at[:, None] - at[None, :]
    near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    seen = (document_ids[:, :, None] == document_ids[:, None, :]) & near
    mask = torch.zeros(seen.shape, dtype=dtype, device=document_ids.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
