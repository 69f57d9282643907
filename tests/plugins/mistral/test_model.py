"""Mistral's size, its attention, and that packing changes no loss."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tunemark_mistral.plugin import tunemark_models
from tunemark_models.packed_mask import make_packed_mask
from tunemark_models.runtime import CausalLm
from tunemark_worker.batches import Batch
from tunemark_worker.contract import Place
from tunemark_worker.precision import autocast
from tunemark_worker.training_loop import cross_entropy_sum

MODELS = {model.name: model for model in tunemark_models()}


def _build(architecture, device="cpu", precision="fp32"):
    runtime = CausalLm()
    torch.manual_seed(0)
    chosen = {"precision": precision, "weights": "random", "attention": "auto", "loss": "plain"}
    stated = SimpleNamespace(architecture=architecture, **chosen)
    return runtime, runtime.build(stated, Place(device, 0, 1, 0, 1))


def _tiny(**changes):
    small = dataclasses.asdict(MODELS["mistral-tiny"].architecture)
    small.update(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=4, **changes)
    return small


def _batch(rows, sequence, packed):
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


# mistral-7b: embedding and head 2 x 32000 x 4096 = 262,144,000; a layer: queries and output 2 x 4096 x 4096, keys and
# values 2 x 4096 x 1024, three matrices 4096 x 14336, two norms of 4096 = 218,112,000; 32 layers; the last norm 4096.
# v0.3 has 768 more words: 2 x 768 x 4096 = 6,291,456 more. mistral-tiny by the same sum.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mistral-7b", 7_241_732_096),
        ("mistral-7b-v0.3", 7_248_023_552),
        ("mistral-small-24b", 23_572_403_200),
        ("ministral-8b-instruct", 8_019_808_256),
        ("mistral-tiny", 19_794_176),
    ],
)
def test_parameters_are_as_published(name, parameters):
    _, module = _build(dataclasses.asdict(MODELS[name].architecture), "meta")
    assert sum(p.numel() for p in module.parameters()) == parameters


@pytest.mark.parametrize("window", [None, 3])
def test_packing_changes_no_loss_and_no_gradient(window):
    documents = [[3, 4, 5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
    runtime, module = _build(_tiny(sliding_window=window))
    found = []
    for batch in (_batch([[d] for d in documents], 8, False), _batch([documents], 16, True)):
        module.zero_grad()
        loss = cross_entropy_sum(runtime.logits(module, batch), batch.labels)
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in module.parameters()]))
        found.append((loss.item(), norm.item()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_sliding_window_is_honoured_without_a_mask():
    ids = [[list(range(1, 17))]]
    windowed, module = _build(_tiny(sliding_window=4))
    full, full_module = _build(_tiny(sliding_window=None))
    full_module.load_state_dict(module.state_dict())
    padded, packed = _batch(ids, 16, False), _batch(ids, 16, True)
    narrow, wide = windowed.logits(module, padded), full.logits(full_module, padded)
    torch.testing.assert_close(narrow[:, :4], wide[:, :4])
    assert (narrow[:, 4:] - wide[:, 4:]).abs().max() > 1e-4
    # The reference: the same weights with full attention under a mask of our own.
    torch.testing.assert_close(narrow, windowed.logits(full_module, packed), atol=1e-5, rtol=1e-4)


def test_the_mask_of_two_documents_and_padding():
    seen = make_packed_mask(torch.tensor([[0, 0, 0, 1, -1]]), 2, torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("precision", ["bf16-autocast", "bf16"])
@pytest.mark.parametrize("packed", [False, True])
def test_lower_precisions_come_near(precision, packed):
    batch = _batch([[[3, 4, 5, 6, 7, 8]]], 8, packed)
    exact, module = _build(_tiny())
    rounded, rounded_module = _build(_tiny(), precision=precision)
    rounded_module.load_state_dict(module.state_dict())
    assert {p.dtype for p in rounded_module.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}
    with autocast(precision, "cpu"):
        logits = rounded.logits(rounded_module, batch)
    assert logits.dtype == torch.bfloat16
    expected = cross_entropy_sum(exact.logits(module, batch), batch.labels).item()
    assert cross_entropy_sum(logits, batch.labels).item() == pytest.approx(expected, rel=0.02)
