"""Stages of a pipeline, one after another in one process, compute what the whole model does, whatever it scales."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

import tunemark
from tunemark.errors import TunemarkError
from tunemark_models.runtime import CausalLm
from tunemark_torch.parallel.pipeline_parallel import Stage, layers_return_tuple
from tunemark_worker.contract import Place, TokenFile
from tunemark_worker.decoder import find_decoder_parts

_SETTINGS: dict[str, Any] = {"dataset": "synthetic", "device": "cpu:2", "sequence": 32, "oversubscribe": True}


# Families that scale embeddings, residuals or logits, in the model or in each layer, and one that asks for the device
# of its embedding.
@pytest.mark.parametrize("name", ["granite-4.0-tiny", "falcon-h1-tiny", "gemma-3-tiny", "llama-4-tiny"])
def test_stages_compute_what_the_whole_model_does(name: str) -> None:
    transformers.logging.set_verbosity_error()
    (plan,) = tunemark.plan(**_SETTINGS, model=name, strategy="pp", precision="fp32", batching="pad", global_batch=8)
    file = TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0)
    assignment = plan.assignment(file, "a", measure_peak=False)
    if "embedding_multiplier" in assignment.architecture.get("configuration", {}):
        scaled = {**assignment.architecture["configuration"], "embedding_multiplier": 3.0}
        assignment = replace(assignment, architecture={**assignment.architecture, "configuration": scaled})
    runtime = CausalLm()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = runtime.build(assignment, Place(device="cpu", rank=0, ranks=1, data_rank=0, data_ranks=1)).eval()
        ids = torch.randint(3, 1000, (1, 32))
        positions = torch.arange(32)[None]
        documents = torch.zeros_like(ids)
        with torch.no_grad():
            whole = model(input_ids=ids, use_cache=False).logits
            parts, returns_tuple = find_decoder_parts(model), layers_return_tuple(model)
            cut, end = len(parts.layers) // 2, len(parts.layers)
            hidden: torch.Tensor = ids
            for bounds in ((0, cut), (cut, end)):
                stage = Stage(parts, bounds, bounds[0] == 0, bounds[1] == end, returns_tuple, assignment)
                stage.logits = runtime.logits
                hidden = stage(hidden, ids, documents, positions)
    torch.testing.assert_close(hidden, whole, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_divided_by_name_is_refused() -> None:
    with pytest.raises(TunemarkError) as caught:
        tunemark.plan(**_SETTINGS, model="gpt-oss-tiny", strategy="tp")
    assert "tp divides weights by name and does not know self_attn.sinks" in str(caught.value)
