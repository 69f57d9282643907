"""How the documents of a packed row are kept apart in a family: tried on a shrunken copy, with weights large enough
that a leak is seen.

A document must have the same scores in a row as alone, whatever stands beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from tunemark_models import document_attention
from tunemark_models.packed_mask import WAYS, call_packed
from tunemark_models.runtime import required_attention
from tunemark_models.shrunken_copy import VOCABULARY, shrink

# Lengths of the documents of a row. The second crosses the borders of a window of 16 and of a chunk of 32.
_LENGTHS = (20, 44)
_TOLERANCE = 1e-5


class PackingWay(NamedTuple):
    """way: one of `WAYS`, None where none keeps documents apart; then `reason` says why."""

    way: str | None
    reason: str | None


def find_packing_way(config: Any) -> PackingWay:
    """The first way that keeps documents apart in fp32, and that runs under autocast too."""
    try:
        module = make_probe_model(config)
    except Exception as error:  # of dimensions that do not fit each other, in any form
        return PackingWay(None, "no small copy could be made to try it: {}".format(" ".join(str(error).split())[:160]))
    reasons: dict[str, None] = {}
    for way in WAYS:
        try:
            problem = _try(module, way)
        # A family that does not take such a mask can raise anything.
        except Exception as error:
            problem = "{}: {}".format(type(error).__name__, " ".join(str(error).split())[:160])
        if problem is None:
            return PackingWay(way, None)
        reasons[problem] = None
    return PackingWay(None, "; ".join(reasons))


def takes_documents(config: Any) -> bool:
    """Whether attention by documents has the scores that each document has alone by the family's own attention, whose
    windows and chunks it may not know."""
    try:
        document_attention.register()
        module, own = make_probe_model(config, document_attention.IMPLEMENTATION), make_probe_model(config)
        if _try(module, "documents") is not None:
            return False
        ids = torch.randint(3, VOCABULARY, (1, sum(_LENGTHS)), generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = own(input_ids=ids, use_cache=False).logits
            found = call_packed(
                module, module.config, ids, torch.zeros_like(ids), torch.arange(ids.shape[1])[None], "documents"
            )
        return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
    except Exception:  # of a family that computes attention in a way of its own, in any form
        return False


def draws_at_random(config: Any) -> bool:
    """Whether a step of training, without dropout, gives other scores with other random numbers, as where a router
    draws experts; False where no small copy can be made."""
    try:
        module = make_probe_model(config).train()
        ids = torch.arange(3, 35)[None]
        with torch.no_grad():
            torch.manual_seed(2)
            one = module(input_ids=ids, use_cache=False).logits
            torch.manual_seed(3)
            return not torch.equal(one, module(input_ids=ids, use_cache=False).logits)
    except Exception:  # of dimensions that do not fit each other, in any form
        return False


def make_probe_model(config: Any, attention: str | None = None) -> torch.nn.Module:
    """A shrunken copy in fp32 on the CPU, of which each layer changes the hidden state as much as it holds. attention:
    transformers' name of it, None for the one that the worker leaves to transformers."""
    small = shrink(config)
    kind: Any = AutoModelForCausalLM
    torch.manual_seed(0)
    module: torch.nn.Module = kind.from_config(small, attn_implementation=attention or required_attention(small)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return module


def _try(module: torch.nn.Module, way: str) -> str | None:
    config: Any = module.config
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(3, VOCABULARY, (n,), generator=generator) for n in _LENGTHS]
    others = [documents[0].flip(0), documents[1]]
    numbers = torch.cat([torch.full((n,), i) for i, n in enumerate(_LENGTHS)])[None]
    positions = torch.cat([torch.arange(n) for n in _LENGTHS])[None]
    with torch.no_grad():
        alone = torch.cat([module(input_ids=each[None], use_cache=False).logits[0] for each in documents])
        rows = [
            call_packed(module, config, torch.cat(each)[None], numbers, positions, way)[0]
            for each in (documents, others)
        ]
        largest = float(alone.abs().max())
        if float((rows[0] - alone).abs().max()) > _TOLERANCE * largest:
            return "a document's scores in a row are not those that it has alone"
        if float((rows[0] - rows[1])[_LENGTHS[0] :].abs().max()) > _TOLERANCE * largest:
            return "a document's scores depend on the one before it in its row"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            call_packed(module, config, torch.cat(documents)[None], numbers, positions, way)
    return None
