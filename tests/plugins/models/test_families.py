"""Facts of public models: their sizes against transformers' own modules, and what is refused as they are no more."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from tunemark.physics import count_lora_parameters, count_parameters, mean_visible_keys, train_flops_per_token
from tunemark_models.plugin import tunemark_models
from tunemark_models.runtime import CausalLm
from tunemark_worker.contract import Place

MODELS = {model.name: model for model in tunemark_models() if model.architecture.traced is None}
PUBLIC = [name for name in MODELS if not name.endswith("-tiny")]

# The parameters of the published checkpoints, each tensor once.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "tinyllama-1.1b": 1_100_048_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "gemma-2-9b": 9_241_705_984,
    "mixtral-8x7b": 46_702_792_704,
    "phi-3-mini-4k": 3_821_079_552,
    "olmo-2-7b": 7_298_617_344,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "baichuan2-13b": 13_896_668_160,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-27b": 27_227_128_320,
    "phi-3-medium-4k": 13_960_238_080,
    "olmo-2-1b": 1_484_916_736,
    "olmo-2-13b": 13_716_198_400,
    "olmo-2-32b": 32_234_279_936,
    "phi-4": 14_659_507_200,
    "phi-4-mini-instruct": 3_836_021_760,
}

# What their configurations say, typed from them; Architecture's defaults are not repeated here. Under transformers' own
# names, so that its module is built of them: layers, hidden, intermediate, heads, key-value heads, vocabulary.
DIMENSIONS = {
    "llama-2-7b": (32, 4096, 11008, 32, 32, 32000),
    "llama-2-13b": (40, 5120, 13824, 40, 40, 32000),
    "llama-2-70b": (80, 8192, 28672, 64, 8, 32000),
    "llama-3-8b": (32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": (80, 8192, 28672, 64, 8, 128256),
    "llama-3.1-8b": (32, 4096, 14336, 32, 8, 128256),
    "llama-3.1-70b": (80, 8192, 28672, 64, 8, 128256),
    "tinyllama-1.1b": (22, 2048, 5632, 32, 4, 32000),
    "smollm2-135m": (30, 576, 1536, 9, 3, 49152),
    "smollm2-360m": (32, 960, 2560, 15, 5, 49152),
    "smollm2-1.7b": (24, 2048, 8192, 32, 32, 49152),
    "qwen2.5-7b": (28, 3584, 18944, 28, 4, 152064),
    "qwen3-8b": (36, 4096, 12288, 32, 8, 151936),
    "gemma-2-9b": (42, 3584, 14336, 16, 8, 256000),
    "mixtral-8x7b": (32, 4096, 14336, 32, 8, 32000),
    "phi-3-mini-4k": (32, 3072, 8192, 32, 32, 32064),
    "olmo-2-7b": (32, 4096, 11008, 32, 32, 100352),
    "gpt2": (12, 768, 3072, 12, 12, 50257),
    "gpt2-medium": (24, 1024, 4096, 16, 16, 50257),
    "gpt2-large": (36, 1280, 5120, 20, 20, 50257),
    "gpt2-xl": (48, 1600, 6400, 25, 25, 50257),
    "baichuan2-13b": (40, 5120, 13696, 40, 40, 125696),
}

# Beyond the dimensions, what makes a configuration's module what it is.
MORE: dict[str, dict[str, Any]] = {
    "qwen3-8b": {"head_dim": 128},
    "gemma-2-9b": {"head_dim": 256},
    "phi-3-mini-4k": {"pad_token_id": 32000},
    **{name: {"tie_word_embeddings": True} for name in ("smollm2-135m", "smollm2-360m", "smollm2-1.7b")},
}


def test_every_model_is_listed_once_with_its_configuration() -> None:
    assert len({model.name for model in tunemark_models()}) == len(tunemark_models())
    assert set(PUBLIC) == set(PARAMETERS)
    for name in PUBLIC:
        assert MODELS[name].source == f"https://huggingface.co/{MODELS[name].pretrained}/blob/main/config.json"


def test_every_family_has_a_member_that_runs_on_two_cores_without_a_network() -> None:
    families = {MODELS[name].architecture.model_type for name in PUBLIC if not MODELS[name].is_remote}
    tiny = [model for model in MODELS.values() if model.name.endswith("-tiny")]
    assert {model.architecture.model_type for model in tiny} == families
    for model in tiny:
        assert model.tokenizer is not None
        assert model.tokenizer.name == "mistral-v1"
        assert "Mistral v0.1" in model.description
        assert count_parameters(model.architecture).total < 12e6


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_published(name):
    assert count_parameters(MODELS[name].architecture).total == PARAMETERS[name]


@pytest.mark.parametrize("name", DIMENSIONS)
def test_dimensions_are_as_published(name):
    a = MODELS[name].architecture
    stated = (a.num_hidden_layers, a.hidden_size, a.intermediate_size, a.num_attention_heads, a.num_key_value_heads)
    assert (*stated, a.vocab_size) == DIMENSIONS[name]


# Baichuan's code is not in transformers.
@pytest.mark.parametrize("name", [name for name in DIMENSIONS if name != "baichuan2-13b"])
def test_transformers_builds_a_module_of_that_size(name):
    layers, hidden, inner, heads, shared, vocab = DIMENSIONS[name]
    kind = MODELS[name].architecture.model_type
    if kind == "gpt2":
        fields = {"n_layer": layers, "n_embd": hidden, "n_head": heads, "vocab_size": vocab}
    else:
        fields = {
            "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner, "vocab_size": vocab,
            "num_attention_heads": heads, "num_key_value_heads": shared, **MORE.get(name, {}),
        }  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].is_remote])
def test_the_runtime_builds_a_module_of_that_size(name: str) -> None:
    stated: Any = SimpleNamespace(
        architecture=MODELS[name].worker_architecture(),
        precision="bf16",
        weights="random",
        attention="auto",
        loss="plain",
    )
    module = CausalLm().build(stated, Place("meta", 0, 1, 0, 1))
    assert sum(p.numel() for p in module.parameters()) == count_parameters(MODELS[name].architecture).total
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}


def test_mixtral_s_active_parameters_are_as_published():
    # Jiang et al. 2024, "Mixtral of Experts", section 2: 47B parameters, of which a token uses 13B.
    count = count_parameters(MODELS["mixtral-8x7b"].architecture)
    assert count.active == 12_879_925_248
    # Six of eight experts of 3 x 4096 x 14336 stay idle in each of 32 layers.
    assert count.total - count.active == 32 * 6 * 3 * 4096 * 14336


def test_gemma_2_s_windows_alternate():
    a = MODELS["gemma-2-9b"].architecture
    assert a.layer_types[:2] == ("sliding_attention", "full_attention")
    # 21 layers see at most 4096 keys, 21 see all; 12 x 16 heads x 256 for each key.
    full = dataclasses.replace(a, layer_types=None, sliding_window=None)
    less = train_flops_per_token(full, 8192) - train_flops_per_token(a, 8192)
    assert less == 21 * 12 * 16 * 256 * (mean_visible_keys(8192, None) - mean_visible_keys(8192, 4096))


def test_lora_of_llama_2_7b_is_what_peft_prints():
    # peft's print_trainable_parameters with rank 8 on q_proj and v_proj: "trainable params: 4,194,304 || all params:
    # 6,742,609,920".
    a = MODELS["llama-2-7b"].architecture
    assert count_lora_parameters(a, 8) == 4_194_304
    assert count_lora_parameters(a, 8) + count_parameters(a).total == 6_742_609_920


def test_they_are_listed_with_their_arithmetic(tunemark: Callable[..., Any]):
    done = tunemark("list", "models", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    row = rows["llama-3-8b"]
    assert (row["parameters"], row["is_runnable"]) == (8_030_261_248, True)
    assert (row["tokenizer"], rows["baichuan2-13b"]["is_runnable"]) == ("meta-llama/Meta-Llama-3-8B", True)
    # 6 x (8,030,261,248 - 525,336,576 embedding - 266,240 norms) + 12 x 32 x 32 x 128 x 1024.5 keys.
    assert row["flops_per_token"] == 6 * 7_504_658_432 + 1_572_864 * 1024.5
    assert rows["mistral-7b"]["is_runnable"] is True
    assert "qkv_bias" not in rows["mistral-7b"]["architecture"]
    assert rows["gpt2"]["sequence"] == 1024


def test_a_model_of_remote_code_can_be_planned_and_is_not_run_unasked(tunemark: Callable[..., Any]) -> None:
    planned = tunemark("plan", "--model", "baichuan2-13b", "--dataset", "synthetic", "--json")
    assert planned.returncode == 0, planned.stderr
    row = json.loads(planned.stdout)
    assert row["parameters"] == 13_896_668_160

    run = tunemark("run", "--model", "baichuan2-13b", "--dataset", "synthetic", "--device", "cpu")
    assert (run.returncode, run.stdout) == (2, "")
    assert "--trust-remote-code" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_tokenizer_that_cannot_be_had_is_an_error_with_ways_on(tunemark: Callable[..., Any], tmp_path: Path) -> None:
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    words = ["--model", "llama-2-7b", "--dataset", "python-stdlib", "--device", "cpu:1"]
    assert tunemark("plan", *words, environment=alone).returncode == 0
    run = tunemark("run", *words, environment=alone)
    assert (run.returncode, run.stdout) == (2, "")
    assert "the tokenizer of meta-llama/Llama-2-7b-hf is not in the local cache" in run.stderr
    assert "hf:FOLDER" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("runs/*/*/plan.json"))
