"""Whether documents stay apart in a packed row is tried on a small copy, and the way that was found is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import transformers

import tunemark
from tunemark.errors import TunemarkError
from tunemark.plugin import Catalog
from tunemark_models.packed_mask import WAYS, call_packed
from tunemark_models.packing_probe import draws_at_random, find_packing_way, make_probe_model
from tunemark_worker.batches import make_batch
from tunemark_worker.contract import Place, TokenFile
from tunemark_worker.precision import autocast


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("kind", "way"), [("exaone4", "positions"), ("gpt_oss", "additive"), ("opt", "boolean"), ("mamba2", None)]
)
def test_the_way_is_the_first_that_keeps_documents_apart(kind: str, way: str | None) -> None:
    found = find_packing_way(transformers.AutoConfig.for_model(kind))
    assert found.way == way
    assert (found.reason is None) == (way is not None)


def test_a_family_that_draws_experts_at_random_is_known() -> None:
    assert draws_at_random(transformers.AutoConfig.for_model("phimoe"))
    assert not draws_at_random(transformers.AutoConfig.for_model("mixtral"))


def test_a_copy_whose_leak_is_wanted_shows_one() -> None:
    """The probe's weights are large enough: without any mask every later document changes."""
    module = make_probe_model(transformers.AutoConfig.for_model("llama"))
    ids = torch.arange(3, 35)[None]
    document_ids = torch.arange(2).repeat_interleave(16)[None]
    positions = torch.arange(16).repeat(2)[None]
    with torch.no_grad():
        apart = call_packed(module, module.config, ids, document_ids, positions, WAYS[0])
        mixed = module(input_ids=ids, use_cache=False).logits
    assert float((apart - mixed)[0, :16].abs().max()) < 1e-5
    assert float((apart - mixed)[0, 16:].abs().max()) > 0.1


# Attention in one operator and in several, windows, experts and latent attention.
@pytest.mark.parametrize("name", ["gemma-3-tiny", "gpt-oss-tiny", "deepseek-v3-tiny", "glm-4-tiny"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-autocast"])
def test_a_packed_documents_loss_is_its_own_alone(name: str, precision: str) -> None:
    (plan,) = tunemark.plan(
        model=name, dataset="synthetic", device="cpu:1", sequence=64, precision=precision, batching="pack"
    )
    file = TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0)
    assignment = plan.assignment(file, "a", measure_peak=False)
    assignment = replace(assignment, architecture={**assignment.architecture})
    from tunemark_models.runtime import CausalLm

    runtime = CausalLm()
    torch.manual_seed(0)
    module = runtime.build(assignment, Place(device="cpu", rank=0, ranks=1, data_rank=0, data_ranks=1))
    documents = [(torch.randint(3, 32000, (n,)), torch.ones(n, dtype=torch.bool)) for n in (20, 30)]

    def losses(rows: list[list[tuple[torch.Tensor, torch.Tensor]]], *, packed: bool) -> torch.Tensor:
        batch = make_batch(rows, 64, 0, packed)
        with torch.no_grad(), autocast(precision, "cpu"):
            scores = runtime.logits(module, batch)[:, :-1].float()
        each = torch.nn.functional.cross_entropy(scores.flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="none")
        return each[each > 0]

    together = losses([documents], packed=True)
    alone = torch.cat([losses([[each]], packed=False) for each in documents])
    assert len(together) == 48
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 if precision == "fp32" else 0.05)


def test_rows_are_padded_by_default_where_nothing_keeps_documents_apart() -> None:
    settings = {"model": "falcon-h1-tiny", "dataset": "synthetic", "device": "cpu:1", "sequence": 64}
    (plan,) = tunemark.plan(**settings)
    assert plan.spec.batching == "pad"
    assert any("rows are padded, not packed" in note for note in plan.notes)
    with pytest.raises(TunemarkError, match="cannot be trained on packed rows") as caught:
        tunemark.plan(**settings, batching="pack")
    assert caught.value.next == "--batching pad"


def test_what_lora_trains_is_every_linear_module_of_the_family() -> None:
    for name in ("glm-4-tiny", "granite-4.0-tiny", "falcon-h1-tiny"):
        model = Catalog().model(name)
        assert model.architecture.traced is not None
        (plan,) = tunemark.plan(model=name, dataset="synthetic", device="cpu:1", sequence=64, method="lora:r=2")
        shapes = [(m.inputs, m.outputs) for layer in model.architecture.traced.layers for m in layer.matrices]
        assert plan.trainable_parameters == 2 * sum(map(sum, shapes))
