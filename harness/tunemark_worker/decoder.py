"""Find the parts of a decoder by what all of transformers' causal language models have in common."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import torch

Module = torch.nn.Module


class DecoderParts(NamedTuple):
    """The parts of a causal language model. Names are attributes of `base`, except `head`, an attribute of `top`.

    base: the model without the head. embedding: of tokens. positions: embeddings of learned positions. norm: the final
    one, None if there is none. is_tied: the head shares the embedding's weight.
    """

    top: Module
    base: Module
    base_name: str
    layers: torch.nn.ModuleList
    layers_name: str
    embedding: str
    positions: List[str]
    norm: Optional[str]
    head: str
    is_tied: bool


def find_layers(module: Module) -> Optional[torch.nn.ModuleList]:
    """The decoder's layers: the ModuleList with the most parameters; None if there is no such list."""
    lists = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    # An outer list comes before lists nested in it, and `max` keeps the first.
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=None)


def find_decoder_parts(module: Module) -> DecoderParts:
    """Find the parts; ValueError says what is missing in a model that is not built like those of transformers."""
    layers = find_layers(module)
    if layers is None:
        raise ValueError("{} has no list of layers".format(type(module).__name__))
    base_name = next((n for n, m in module.named_children() if any(x is layers for x in m.modules())), None)
    if base_name is None:
        raise ValueError("{}: its layers are not within a base model".format(type(module).__name__))
    base = getattr(module, base_name)
    children: Dict[str, Module] = dict(base.named_children())
    layers_name = next((n for n, m in children.items() if m is layers), None)
    if layers_name is None:
        raise ValueError("{}: its layers are not a child of {}".format(type(module).__name__, base_name))
    embedding = _child_name(children, _call_if_present(module, "get_input_embeddings"), "an embedding of tokens")
    head = _child_name(dict(module.named_children()), _call_if_present(module, "get_output_embeddings"), "a head")
    positions = [n for n, m in children.items() if isinstance(m, torch.nn.Embedding) and n != embedding]
    candidates = [n for n, m in children.items() if n not in (embedding, layers_name, *positions) and _has_weights(m)]
    if not candidates:
        # A norm may have no weights; rotary position embeddings have none either, so go by the name.
        candidates = [n for n, m in children.items() if "norm" in type(m).__name__.lower()]
    if len(candidates) > 1:
        raise ValueError("{}: which of {} is the final norm?".format(type(module).__name__, ", ".join(candidates)))
    return DecoderParts(
        top=module,
        base=base,
        base_name=base_name,
        layers=layers,
        layers_name=layers_name,
        embedding=embedding,
        positions=positions,
        norm=candidates[0] if candidates else None,
        head=head,
        is_tied=getattr(module, head).weight is children[embedding].weight,
    )


def _call_if_present(module: Module, method: str) -> Any:
    return getattr(module, method)() if hasattr(module, method) else None


def _child_name(children: Dict[str, Module], wanted: Any, what: str) -> str:
    name = next((n for n, m in children.items() if m is wanted), None)
    if wanted is None or name is None:
        raise ValueError("{} was not found where transformers' models have it".format(what))
    return name


def _has_weights(module: Module) -> bool:
    return any(True for _ in module.parameters())
