"""A model's own code, stepped without weights, gives the parameters and FLOPs of the real one."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from tunemark.physics import count_lora_parameters, count_parameters, lora_trained_weights, train_flops_per_token
from tunemark.physics.flops import TrainedWeights, hardware_flops_per_token, train_flops_by_role
from tunemark.physics.parameters import adaptable_matrices
from tunemark.plugin import Architecture
from tunemark_models.hf_config import read_hf_model
from tunemark_models.model_trace import TraceError, main, trace_config
from tunemark_models.plugin import tunemark_models
from tunemark_models.runtime import make_config, prepare_for_training
from tunemark_models.traced_architecture import architecture_from_trace, describe_trace
from tunemark_worker.lora_adapters import apply_method

_SPEC = importlib.util.spec_from_file_location("families", Path(__file__).parents[3] / "benchmarks/families.py")
assert _SPEC is not None
assert _SPEC.loader is not None
FAMILIES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(FAMILIES)

# Of each kind one: experts and shared experts, a state space beside attention, windows with shared keys and values and
# per-layer embeddings, experts that are all computed, fused projections.
_SAMPLE = ("deepseek_v3", "falcon_h1", "gpt_neox")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        # transformers' own, of kernels that are not installed.
        warnings.simplefilter("ignore")
        yield


def trace_small(kind: str, **fields: Any) -> Architecture:
    config = FAMILIES.make_small(kind)
    for name, value in fields.items():
        setattr(config, name, value)
    return architecture_from_trace(trace_config(prepare_for_training(config)), kind)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in _SAMPLE else [pytest.mark.full]) for kind in FAMILIES.FAMILIES]
)
def test_parameters_are_exact_and_flops_are_those_of_torchs_counter(kind: str) -> None:
    row = FAMILIES.check_family(kind)
    assert row["is_exact"]
    # torch counts the backward pass of a triangular solve, and nothing of the solve itself.
    assert abs(row["difference"]) < (0.04 if kind == "qwen3_next" else 0.01)


@pytest.mark.parametrize("name", ["gemma-2-tiny", "gpt2-tiny", "mixtral-tiny", "qwen3-tiny"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_formula_gives_what_the_model_does(name: str, method: str) -> None:
    (formula,) = (m.architecture for m in tunemark_models() if m.name == name)
    config = make_config({**formula.as_dict(), "vocab_size": 64})
    traced = architecture_from_trace(trace_config(config), name)
    formula = replace(formula, vocab_size=64)
    assert count_parameters(traced) == count_parameters(formula)
    trained = TrainedWeights()
    if method == "lora":
        names = ("c_attn", "c_fc") if name.startswith("gpt2") else ("q_proj", "o_proj")
        trained = lora_trained_weights(4, names)
        assert count_lora_parameters(traced, 4, names) == count_lora_parameters(formula, 4, names)
    for convention in ("causal", "full"):
        counts = (train_flops_by_role(each, 200, convention, trained) for each in (traced, formula))  # type: ignore[arg-type]
        assert len(set(counts)) == 1
    both = (hardware_flops_per_token(each, 200, recomputation="full", trained=trained) for each in (traced, formula))
    assert len(set(both)) == 1


@pytest.mark.parametrize(
    ("kind", "targets"), [("glm4", ("gate_up_proj",)), ("granitemoehybrid", ("in_proj", "q_proj"))]
)
def test_the_flops_of_adapters_are_those_of_torchs_counter(kind: str, targets: tuple[str, ...]) -> None:
    """The first layer's frozen weights need no gradient of their input, and what follows an adapter does."""
    a = trace_small(kind)
    config = FAMILIES.make_small(kind)
    config._experts_implementation = "eager"
    model: Any = transformers.AutoModelForCausalLM
    module = model.from_config(prepare_for_training(config), attn_implementation="eager").train()
    before = sum(p.numel() for p in module.parameters())
    apply_method("lora", {"r": 2, "alpha": 4, "targets": list(targets)}, module)
    added = sum(p.numel() for p in module.parameters()) - before
    assert added == count_lora_parameters(a, 2, targets)
    backward: Any = {torch.ops.aten.convolution_backward: FAMILIES._conv_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        module(input_ids=torch.arange(64)[None] + 3, use_cache=False).logits.square().mean().backward()
    ours = train_flops_per_token(a, 64, "full", lora_trained_weights(2, targets)) * 64
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_linear_module_whose_weight_the_family_reads_itself_has_no_adapter() -> None:
    # An adapter of `dt_proj` would get no gradient: Mamba multiplies by its weight without calling it.
    assert adaptable_matrices(trace_small("mamba", num_hidden_layers=1, max_position_embeddings=16)) == (
        "in_proj",
        "x_proj",
    )


def test_the_mask_and_the_window_leave_a_part_of_the_scores() -> None:
    a = trace_small("exaone4", layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=16)
    # 2 products x 2 FLOPs x 3 passes x 4 heads of 16; in two of four layers a query sees (1 + 64) / 2 keys, in two
    # others (16 x 17 / 2 + 48 x 16) / 64.
    assert train_flops_by_role(a, 64).scores == 2 * 2 * 3 * 4 * 16 * 2 * (32.5 + 14.125)
    assert train_flops_by_role(a, 64, "full").scores == 2 * 2 * 3 * 4 * 16 * 4 * 64


def test_the_chunks_of_chunked_attention_are_causal_within() -> None:
    a = trace_small("llama4_text")
    assert a.traced is not None
    assert [layer.chunk for layer in a.traced.layers] == [32, 32, 32, None]
    causal, full = (train_flops_by_role(a, 64, each).scores for each in ("causal", "full"))  # type: ignore[arg-type]
    assert causal / full == pytest.approx((3 * 16.5 + 32.5) / (4 * 64))


def test_a_mixture_counts_the_experts_that_a_token_uses() -> None:
    a = trace_small("llama4_text")
    counts = count_parameters(a)
    # Two of four layers have 4 experts of three matrices 64 x 96, of which a token uses one.
    assert counts.total - counts.active == 2 * 3 * 3 * 64 * 96
    assert counts.router == 2 * 4 * 64
    said = " ".join(describe_trace(a))
    assert "computes every expert for every token" in said


def test_what_cannot_be_followed_names_the_operator_and_the_module(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("jetmoe", num_hidden_layers=1)
    with pytest.raises(TraceError, match=r"content of tensors: \w+ in model\.layers\.0\.self_attention\.experts"):
        trace_config(config)


def test_a_folder_without_a_formula_is_stepped_in_another_process_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    FAMILIES.make_small("granitemoe").save_pretrained(folder)
    found = read_hf_model(str(folder))
    assert found.architecture.traced is not None
    assert count_parameters(found.architecture).total > count_parameters(found.architecture).active
    assert found.notes[0].startswith("granitemoe: parameters and FLOPs are those of the model's own code")
    (kept,) = (tmp_path / "cache/models").iterdir()
    # The second reading is from the cache.
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "longest": 77}))
    assert read_hf_model(str(folder)).architecture.max_position_embeddings == 77


def test_a_configuration_that_transformers_cannot_build_is_an_error_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceptron"}))
    assert main(str(tmp_path)) == 0
    assert "perceptron" in json.loads(capsys.readouterr().out)["error"]
