"""Stages of a pipeline, one after another in one process, compute what the whole model does, whatever it scales."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

import tunemark
from tunemark.errors import TunemarkError
from tunemark_models.model_trace import trace_config
from tunemark_models.packing_probe import make_probe_model
from tunemark_models.pipeline_probe import find_pipeline_problem
from tunemark_models.runtime import CausalLm, prepare_for_training
from tunemark_torch.parallel.stage_check import check_stages
from tunemark_worker.contract import Assignment, Place, TokenFile

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import families  # a program of the benchmarks

_SETTINGS: dict[str, Any] = {"dataset": "synthetic", "device": "cpu:2", "sequence": 32, "oversubscribe": True}
# Learned positions; all others are tried in full.
_SAMPLE = ("gpt2",)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _build(name: str) -> torch.nn.Module:
    """A model as the worker builds it for a pipeline; what scales its embeddings does so visibly."""
    (plan,) = tunemark.plan(**_SETTINGS, model=name, strategy="pp", precision="fp32", batching="pad", global_batch=8)
    assignment: Assignment = plan.assignment(
        TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0), "a", measure_peak=False
    )
    if "embedding_multiplier" in assignment.architecture.get("configuration", {}):
        scaled = {**assignment.architecture["configuration"], "embedding_multiplier": 3.0}
        assignment = replace(assignment, architecture={**assignment.architecture, "configuration": scaled})
    torch.manual_seed(0)
    return CausalLm().build(assignment, Place(device="cpu", rank=0, ranks=1, data_rank=0, data_ranks=1))


# Families that scale embeddings, residuals or logits, in the model or in each layer, and one that asks for the device
# of its embedding.
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("granite-4.0-tiny", "fp32"),
        ("falcon-h1-tiny", "fp32"),
        ("gemma-3-tiny", "bf16-autocast"),
        ("llama-4-tiny", "fp32"),
    ],
)
def test_stages_compute_what_the_whole_model_does(name: str, precision: str) -> None:
    model = _build(name).train()
    found = check_stages(model, 2, precision)
    assert found.problem is None
    # The same operations in the same order, so not only within the tolerance.
    assert found.difference == 0
    # Nothing of the model has changed.
    assert all(each.training for each in model.modules())
    assert check_stages(model, 2, precision) == found


def test_a_simulated_step_has_no_values_to_compare() -> None:
    shape = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
    with FakeTensorMode():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=32, intermediate_size=16, **shape))
        found = check_stages(model, 2, "fp32")
    assert math.isnan(found.difference)
    assert found.problem is None


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in _SAMPLE else [pytest.mark.full]) for kind in families.FAMILIES]
)
def test_every_family_is_equal_in_stages_or_refused_by_its_trace(kind: str) -> None:
    config = prepare_for_training(families.make_default(kind))
    # GPT-2 has a formula, and no trace.
    refused = None if kind == "gpt2" else trace_config(prepare_for_training(families.make_small(kind)))
    if find_pipeline_problem(config) is not None:
        assert refused is not None
        assert refused["pipeline_obstacle"]
        return
    assert refused is None or refused["pipeline_obstacle"] is None
    assert check_stages(make_probe_model(config), 3, "fp32").difference == 0


class _Layer(torch.nn.Module):
    """Returns a tensor, or, if it also takes what the layer before it found, both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(8, 8)

    def forward(self, hidden_states: torch.Tensor, *found: torch.Tensor | None) -> Any:
        changed = hidden_states + self.weight(hidden_states)
        if not found:
            return changed
        return (changed if found[0] is None else changed + found[0]), changed.detach().abs()


class _Base(torch.nn.Module):
    """A decoder whose own code does something around its layers."""

    def __init__(self, habit: str) -> None:
        super().__init__()
        self.habit = habit
        self.embed = torch.nn.Embedding(32, 8)
        self.layers = torch.nn.ModuleList(_Layer() for _ in range(4))
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded = hidden = self.embed(ids)
        if self.habit == "scales embeddings":
            hidden = 12.0 * hidden
        carried = None
        for layer in self.layers:
            if self.habit == "carries":
                hidden, carried = layer(hidden, carried)
            else:
                hidden = layer(hidden)
            if self.habit == "scales residuals":
                hidden = 1.001 * hidden
            elif self.habit == "repeats embeddings":
                hidden = hidden + 0.01 * embedded
        return self.norm(hidden)  # type: ignore[no-any-return]


class _Decoder(torch.nn.Module):
    def __init__(self, habit: str) -> None:
        super().__init__()
        self.model = _Base(habit)
        self.lm_head = torch.nn.Linear(8, 32)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.model.embed

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head

    def forward(self, input_ids: torch.Tensor, *, use_cache: bool) -> Any:
        assert not use_cache
        return SimpleNamespace(logits=self.lm_head(self.model(input_ids)) / 8.0)


@pytest.mark.parametrize(
    ("habit", "is_found"),
    [
        ("nothing", False),
        # Before the first layer, and after the head: the stages that do not hold it leave it out.
        ("scales embeddings", False),
        ("scales residuals", True),
        ("repeats embeddings", True),
        ("carries", True),
    ],
)
def test_code_between_the_layers_is_found_whatever_it_is_called(habit: str, is_found: bool) -> None:
    torch.manual_seed(0)
    found = check_stages(_Decoder(habit), 2, "fp32")
    assert (found.problem is not None) is is_found, found
    assert is_found or found.difference == 0


def test_a_family_whose_small_copy_does_not_run_is_left_to_the_worker() -> None:
    # The dimensions of its small copy do not fit each other.
    assert find_pipeline_problem(transformers.AutoConfig.for_model("axk1")) is None


def test_learned_positions_are_called_in_whatever_way() -> None:
    # BioGPT passes a mask, and positions by name.
    model = make_probe_model(prepare_for_training(transformers.BioGptConfig()))
    assert check_stages(model, 2, "fp32").difference == 0


def test_a_strategy_does_not_train_stages_of_another_function() -> None:
    from tunemark_torch.parallel.mesh import MeshStrategy

    (plan,) = tunemark.plan(**_SETTINGS, model="llama-2-tiny", strategy="pp", precision="fp32", global_batch=8)
    file = TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0)
    strategy = MeshStrategy(plan.assignment(file, "a", measure_peak=False))
    with pytest.raises(ValueError, match=r"_Decoder in 2 stages does not compute .* use ddp, fsdp or tp"):
        strategy._try_stages(_Decoder("scales residuals"))
    assert strategy._try_stages(_Decoder("nothing")) == 0


def test_what_cannot_be_divided_by_name_is_refused() -> None:
    with pytest.raises(TunemarkError) as caught:
        tunemark.plan(**_SETTINGS, model="gpt-oss-tiny", strategy="tp")
    assert "tp divides weights by name and does not know self_attn.sinks" in str(caught.value)
