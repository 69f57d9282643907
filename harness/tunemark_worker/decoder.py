"""The parts of a decoder, found by what transformers' causal language models have in common, whatever the family."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import torch

Module = torch.nn.Module


class Decoder(NamedTuple):
    """A causal language model in its parts; names are attributes of `base`, but for `head`, one of `top`.

    base: the stack without the head. embedding: of tokens. positions: tables of learned positions. norm: the last
    one, None where there is none. is_tied: the head's weight is the embedding's.
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


def layers_of(module: Module) -> Optional[torch.nn.ModuleList]:
    """The decoder's layers: the list of modules that holds most parameters; None where there is no list."""
    lists = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    # An outer list comes before those within, and `max` keeps the first.
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=None)


def decoder(module: Module) -> Decoder:
    """The parts; ValueError says what is missing, for a model that is not built as transformers' are."""
    layers = layers_of(module)
    if layers is None:
        raise ValueError("{} has no list of layers".format(type(module).__name__))
    base_name = next((n for n, m in module.named_children() if any(x is layers for x in m.modules())), None)
    if base_name is None:
        raise ValueError("{}: its layers are not within a base model".format(type(module).__name__))
    base = getattr(module, base_name)
    children: Dict[str, Module] = dict(base.named_children())
    layers_name = next((n for n, m in children.items() if m is layers), None)
    if layers_name is None:
        raise ValueError("{}: its layers are no child of {}".format(type(module).__name__, base_name))
    embedding = _of(children, _asked(module, "get_input_embeddings"), "an embedding of tokens")
    head = _of(dict(module.named_children()), _asked(module, "get_output_embeddings"), "a head")
    positions = [n for n, m in children.items() if isinstance(m, torch.nn.Embedding) and n != embedding]
    others = [n for n, m in children.items() if n not in (embedding, layers_name, *positions) and _has_weights(m)]
    if not others:
        # A norm without weights is a norm all the same; rotary positions are none.
        others = [n for n, m in children.items() if "norm" in type(m).__name__.lower()]
    if len(others) > 1:
        raise ValueError("{}: which of {} is the last norm?".format(type(module).__name__, ", ".join(others)))
    return Decoder(
        top=module,
        base=base,
        base_name=base_name,
        layers=layers,
        layers_name=layers_name,
        embedding=embedding,
        positions=positions,
        norm=others[0] if others else None,
        head=head,
        is_tied=getattr(module, head).weight is children[embedding].weight,
    )


def _asked(module: Module, method: str) -> Any:
    return getattr(module, method)() if hasattr(module, method) else None


def _of(children: Dict[str, Module], wanted: Any, what: str) -> str:
    name = next((n for n, m in children.items() if m is wanted), None)
    if wanted is None or name is None:
        raise ValueError("{} was not found where transformers' models have it".format(what))
    return name


def _has_weights(module: Module) -> bool:
    return any(True for _ in module.parameters())
