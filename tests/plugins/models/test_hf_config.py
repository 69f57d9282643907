"""Models by the folder that they lie in: what config.json says, what it leaves out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tunemark
from tunemark.errors import TunemarkError
from tunemark.experiment.initial_weights import check_weight_files
from tunemark.physics import count_parameters, train_flops_per_token
from tunemark.plugin import Catalog
from tunemark_models.hf_config import read_hf_model
from tunemark_models.plugin import tunemark_models
from tunemark_models.runtime import make_config
from tunemark_models.tokenizer import tokenizer_from_folder
from tunemark_worker.contract import TokenFile

TINY = {m.name: m for m in tunemark_models() if m.name.endswith("-tiny") and m.architecture.traced is None}
_SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
# Families without a built-in member, and settings that change what is counted.
OTHERS: dict[str, dict[str, Any]] = {
    "granite": {"model_type": "granite", "embedding_multiplier": 12.0, "attention_bias": True},
    "gemma": {"model_type": "gemma", "head_dim": 16},
    "llama, biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral, window left out": {"model_type": "mistral"},
    "qwen2, windows": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen2, unused window": {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 8},
    "qwen3": {"model_type": "qwen3"},
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "sliding_window": 8},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "phi3": {"model_type": "phi3", "pad_token_id": 0, "rope_theta": 5000.0},
}


def written(folder: Path, stated: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(stated))
    return folder


@pytest.mark.parametrize("name", TINY)
def test_a_built_in_model_s_configuration_is_that_model(name: str, tmp_path: Path) -> None:
    make_config(TINY[name].worker_architecture()).save_pretrained(tmp_path)
    found = read_hf_model(str(tmp_path))
    assert found.architecture == TINY[name].architecture
    # What changes no count survives too: the module that is built of it has the same configuration.
    ours, theirs = (
        make_config(found.worker_architecture()).to_dict(),
        make_config(TINY[name].worker_architecture()).to_dict(),
    )
    assert {k: v for k, v in ours.items() if theirs.get(k) != v} == {}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_counted_is_what_transformers_builds(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {**_SMALL, **OTHERS[name]})
    found = read_hf_model(str(folder))
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(config)
        ours: Any = transformers.AutoModelForCausalLM
        built = ours.from_config(make_config(found.worker_architecture()))
    count = count_parameters(found.architecture).total
    assert sum(p.numel() for p in theirs.parameters()) == count
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    wanted = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    assert found.architecture.sliding_window == wanted
    if getattr(config, "layer_types", None) and found.architecture.layer_types:
        assert list(found.architecture.layer_types) == config.layer_types
    assert train_flops_per_token(found.architecture, 32) > 0


def test_it_is_found_by_name_and_named_by_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "here", {**_SMALL, "model_type": "llama"})
    monkeypatch.chdir(tmp_path)
    found = Catalog().model("hf:here")
    assert (found.name, found.pretrained) == (f"hf:{tmp_path}/here", f"{tmp_path}/here")
    assert Catalog().model("hf:./here/../here").name == found.name
    assert not found.is_remote


def _without(name: str) -> dict[str, Any]:
    return {k: v for k, v in {**_SMALL, "model_type": "mistral"}.items() if k != name}


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ([1, 2], "has no readable config.json"),
        ({}, "does not name its model type"),
        (_without("hidden_size"), "lacks a dimension: hidden_size"),
        # Eight in transformers, as many as heads to a reader who guesses.
        (_without("num_key_value_heads"), "lacks a dimension: num_key_value_heads"),
        ({**_SMALL, "model_type": "llama", "hidden_size": 33}, "4 heads do not divide a hidden_size of 33"),
        ({**_SMALL, "model_type": "llama", "vocab_size": -5}, "vocab_size is -5"),
        ({**_SMALL, "model_type": "llama", "num_attention_heads": 0}, "has invalid dimensions"),
        ({**_SMALL, "model_type": "llama", "hidden_size": "wide"}, "wide"),
        ({**_SMALL, "model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantized (gptq)"),
        ({**_SMALL, "model_type": "llama", "quantization_config": 4}, "quantized (in an unknown way)"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_configuration_that_cannot_be_counted_is_refused(stated: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(TunemarkError) as error:
        read_hf_model(str(written(tmp_path, stated)))
    assert said in str(error.value)
    assert error.value.next


def test_what_is_not_there_is_an_error_with_ways_on(tunemark: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(TunemarkError, match=r"nowhere has no readable config\.json"):
        read_hf_model(str(tmp_path / "nowhere"))
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = tunemark("plan", "--model", "hf:somebody/something", "--dataset", "synthetic", environment=alone)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "hf:somebody/something is not in the local cache of the hub and cannot be downloaded from it" in done.stderr
    assert "hf:FOLDER" in done.stderr
    assert "Traceback" not in done.stderr


# -- weights

HEADER = b"\x02\0\0\0\0\0\0\0{}"


def test_pickled_weights_are_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {**_SMALL, "model_type": "llama"})
    for name in ("pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(b"\x80\x04.")
    words: dict[str, Any] = {
        "model": f"hf:{folder}", "weights": "pretrained", "dataset": "synthetic", "device": "cpu:1", "sequence": "32",
    }  # fmt: skip
    with pytest.raises(TunemarkError) as error:
        tunemark.plan(**words)
    assert "are pickles: pytorch_model.bin" in str(error.value)
    assert "--allow-pickle" in error.value.next
    (plan,) = tunemark.plan(**words, allow_pickle=True)
    told = plan.assignment(TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0), "a", measure_peak=False)
    assert (told.weights, told.allow_pickle) == (f"pretrained:{folder}", True)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(TunemarkError) as error:
            check_weight_files(tmp_path, "model", "--weights", allow_pickle=False)
        return str(error.value)

    assert "there are no weights in 'model'" in refusal()
    (tmp_path / "adapter_model.safetensors").write_bytes(HEADER)
    assert "only adapters" in refusal()
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(HEADER)
    parts = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(parts))
    assert "model-00002-of-00002.safetensors" in refusal()
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(HEADER)
    check_weight_files(tmp_path, "model", "--weights", allow_pickle=False)


def test_a_tokenizer_is_read_in_either_form(tmp_path: Path) -> None:
    from tunemark_mistral.tokenizer import load_v1

    (tmp_path / "tokenizer.model").write_bytes(load_v1().path.read_bytes())
    text = "def  main():\n    pass"
    found = tokenizer_from_folder(str(tmp_path))
    assert (found.vocab_size, found.bos_id, found.eos_id, found.pad_id) == (32000, 1, 2, 2)
    assert found.encode([text]) == load_v1().encode([text])
    assert found.decode(found.encode([text])[0]) == text
    with pytest.raises(TunemarkError, match=r"no tokenizer\.json and no"):
        tokenizer_from_folder(str(tmp_path / "nowhere"))
