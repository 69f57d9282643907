"""Every family in miniature: built by transformers as its facts say, and packing changes no loss and no gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunemark.physics import parameters
from tunemark.plugin import Model
from tunemark_models.plugin import tunemark_models
from tunemark_models.runtime import CausalLm
from tunemark_worker.batches import Batch
from tunemark_worker.contract import Place
from tunemark_worker.loop import loss_of

TINY = {model.name: model for model in tunemark_models() if model.name.endswith("-tiny")}

# A window of 3 tokens must be felt by documents of 5 and 6.
DOCUMENTS = [[3, 4, 5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


def smaller(model: Model) -> Model:
    """Two layers and 50 words, with all that makes the family what it is."""
    a = model.architecture
    window = None if a.sliding_window is None else 3
    kinds = None if a.layer_types is None else a.layer_types[:2]
    small = dataclasses.replace(a, vocab_size=50, num_hidden_layers=2, sliding_window=window, layer_types=kinds)
    return dataclasses.replace(model, architecture=small)


def build(model: Model, precision: str = "fp32") -> tuple[CausalLm, torch.nn.Module]:
    runtime = CausalLm()
    torch.manual_seed(0)
    stated: Any = SimpleNamespace(architecture=model.told(), precision=precision, weights="random")
    return runtime, runtime.build(stated, Place("cpu", 0, 1, 0, 1)).train()


def batch(rows: Sequence[Sequence[list[int]]], sequence: int, packed: bool) -> Batch:
    """rows: lists of documents, each a list of ids."""
    shape = len(rows), sequence
    ids, labels = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -100)
    documents, positions = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        at = 0
        for d, document in enumerate(row):
            here = slice(at, at + len(document))
            ids[r, here] = labels[r, here] = torch.tensor(document)
            labels[r, at] = -100
            documents[r, here] = d
            positions[r, here] = torch.arange(len(document))
            at += len(document)
    return Batch(ids, labels, documents, positions, packed)


@pytest.mark.parametrize("name", TINY)
def test_packing_changes_no_loss_and_no_gradient(name: str) -> None:
    model = smaller(TINY[name])
    runtime, module = build(model)
    assert sum(p.numel() for p in module.parameters()) == parameters(model.architecture).total
    found = []
    for each in (batch([[d] for d in DOCUMENTS], 8, False), batch([DOCUMENTS], 16, True)):
        module.zero_grad()
        loss = loss_of(runtime.logits(module, each), each.labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        grads = [p.grad for p in module.parameters()]
        assert all(g is not None and bool(g.any()) for g in grads)
        found.append((loss.item(), torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])).item()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
