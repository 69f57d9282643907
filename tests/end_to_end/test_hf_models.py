"""Models by the folder that they lie in, trained: their weights are read, their code and their pickles are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from tunemark_worker import row_packing
from tunemark_worker.batches import MappedTokens
from tunemark_worker.contract import Assignment

pytestmark = pytest.mark.full

_SHORT = ["--dataset", "synthetic", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "2", "--no-measure-peak"]
_SHORT += ["--warmup", "1", "--steps", "3", "--repeats", "1", "--target-interval", "0", "--precision", "fp32"]
_SIZE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "phi3": {},
    # Not known by name.
    "gpt_neox": {"num_key_value_heads": 4},
    "exaone4": {"sliding_window": 8, "sliding_window_pattern": 2},
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, tunemark_cache: Path) -> Run:
    def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache), "OMP_NUM_THREADS": "1", **variables}
        command = [sys.executable, "-m", "tunemark", "run", "--model", f"hf:{folder}", *_SHORT, *words, "--json"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def _row(done: subprocess.CompletedProcess[str], *codes: int) -> dict[str, Any]:
    assert done.returncode in codes, done.stderr
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _model(folder: Path, kind: str) -> Any:
    """A random model of that kind, with its weights in the folder."""
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(kind, **{**_SIZE, **KINDS[kind]})
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(config).eval()
    with torch.no_grad():
        # Far enough from equal odds for any mistake to show.
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_a_folder_are_the_ones_that_are_trained(kind: str, run: Run, tmp_path: Path) -> None:
    model = _model(tmp_path / "model", kind)
    row = _row(run(tmp_path / "model", "--weights", "pretrained", "--evaluate", "8", "--batching", "pack"), 0, 3)
    assert row["status"] == "ok", row["findings"]
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert not [f for f in row["findings"] if f["severity"] == "invalid"], row["findings"]
    (plan,) = tmp_path.glob("runs/*/*/plan.json")
    told = Assignment.from_json(plan.read_text())
    tokens, total, count = MappedTokens(told.token_file), 0.0, 0
    for number in row_packing.select_held_out(tokens.lengths(), told.evaluate):
        length = min(tokens.lengths()[number], told.sequence)
        ids = tokens.batch([[row_packing.DocumentPrefix(number, length)]], length, False).input_ids
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (length - 1)
        count += length - 1
    assert row["held_out"]["loss_before"] == pytest.approx(total / count, rel=1e-5)


def test_a_configuration_alone_begins_at_random(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    stated = {**_SIZE, "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(stated))
    row = _row(run(folder), 0, 3)
    assert (row["status"], row["weights"]) == ("ok", "random")
    # ln 64.
    assert row["loss_first"] == pytest.approx(4.16, abs=0.1)
    refused = run(folder, "--weights", "pretrained")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "there are no weights in" in refused.stderr
    # The same folder with another model in it is another run.
    (folder / "config.json").write_text(json.dumps({**stated, "hidden_act": "gelu"}))
    assert _row(run(folder), 0, 3)["loss_last"] != row["loss_last"]


def test_weights_with_a_hole_fail_and_are_not_filled_with_noise(run: Run, tmp_path: Path) -> None:
    _model(tmp_path / "model", "qwen3")
    path = tmp_path / "model/model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights.pop("model.layers.1.mlp.down_proj.weight")
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    row = _row(run(tmp_path / "model", "--weights", "pretrained"), 4)
    assert row["status"] == "error"
    assert "missing keys" in row["each_attempt"][0]["evidence"]
    assert "down_proj" in row["each_attempt"][0]["evidence"]


def test_pickles_are_read_where_that_is_allowed(run: Run, tmp_path: Path) -> None:
    model = _model(tmp_path / "model", "qwen3")
    (tmp_path / "model/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model/pytorch_model.bin")
    assert run(tmp_path / "model", "--weights", "pretrained").returncode == 2
    row = _row(run(tmp_path / "model", "--weights", "pretrained", "--allow-pickle"), 0, 3)
    assert row["status"] == "ok", row["findings"]


_CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path(__file__).parent.joinpath("ran").touch()
pathlib.Path({marker!r}).touch()


class Config(LlamaConfig):
    model_type = "baichuan"


class Model(LlamaForCausalLM):
    config_class = Config
"""


def test_code_of_a_repository_runs_only_where_it_is_trusted(run: Run, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    names = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    size = {**_SIZE, "num_key_value_heads": 4}
    (folder / "config.json").write_text(json.dumps({**size, "model_type": "baichuan", "auto_map": names}))
    (folder / "own.py").write_text(_CODE.format(marker=str(marker)))
    words = ["--batching", "pad"]
    home = {"HF_HOME": str(tmp_path / "home")}
    refused = run(folder, *words, **home)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--trust-remote-code" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not marker.exists()
    assert not list(tmp_path.glob("runs/*/*/plan.json"))
    row = _row(run(folder, *words, "--trust-remote-code", **home), 0, 3)
    assert row["status"] == "ok", row["each_attempt"]
    assert not [f for f in row["findings"] if f["severity"] == "invalid"], row["findings"]
    assert marker.exists()


def test_weights_of_a_hub_that_cannot_be_reached_are_an_error(run: Run, tmp_path: Path) -> None:
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = run(Path("x"), "--model", "gpt2", "--weights", "pretrained", **alone)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the weights of" in done.stderr
    assert "not in the local cache and cannot be downloaded from the hub" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/*/plan.json"))
