"""A true fine-tuning beside the measurement: held-out loss, completion, and a model that transformers alone loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers

from tunemark_worker import row_packing
from tunemark_worker.batches import MappedTokens
from tunemark_worker.contract import PROVENANCE_FILE, Assignment

PROMPT = "def main("
HELD_OUT = 6
_SHORT = ["--device", "cpu:1", "--sequence", "48", "--micro-batch", "2", "--no-measure-peak", "--warmup", "1"]
_SHORT += ["--steps", "5", "--repeats", "1", "--target-interval", "0", "--precision", "fp32", "--learning-rate", "2e-3"]


class Run(NamedTuple):
    """How a command ended, what it said, and the folder that it ran in."""

    done: subprocess.CompletedProcess[str]
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        assert self.done.returncode in (0, 3), self.done.stderr
        return [json.loads(line) for line in self.done.stdout.splitlines()]

    @property
    def records(self) -> list[dict[str, Any]]:
        (path,) = sorted(self.folder.glob("runs/*/*/records.0.jsonl"))
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def assignment(self) -> Assignment:
        (path,) = sorted(self.folder.glob("runs/*/*/plan.json"))
        return Assignment.from_json(path.read_text())


@pytest.fixture(scope="module")
def run(tunemark_cache: Path) -> Callable[..., Run]:
    def run(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> Run:
        variables = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache), "OMP_NUM_THREADS": "1", **(environment or {})}
        command = [sys.executable, "-m", "tunemark", "run", *_SHORT, *words, "--json"]
        return Run(subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True), folder)

    return run


@pytest.fixture(scope="module")
def tuned(run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tuned")
    beside = ["--evaluate", str(HELD_OUT), "--sample", PROMPT, "--save", "kept/model"]
    return run(folder, "--model", "mistral-tiny", *beside, "--output", "out")


def held_out_loss(model: Any, assignment: Assignment) -> float:
    """The mean loss per predicted token, each held-out document alone, by transformers' own loss."""
    tokens = MappedTokens(assignment.token_file)
    total, count = 0.0, 0
    for number in row_packing.select_held_out(tokens.lengths(), assignment.evaluate):
        length = min(tokens.lengths()[number], assignment.sequence)
        ids = tokens.batch([[row_packing.DocumentPrefix(number, length)]], length, False).input_ids
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (length - 1)
        count += length - 1
    return total / count


def test_its_held_out_loss_falls_and_is_what_transformers_alone_computes(tuned: Run) -> None:
    (row,) = tuned.rows
    held_out = row["held_out"]
    assert held_out["documents"] == HELD_OUT
    assert held_out["loss_after"] < 0.99 * held_out["loss_before"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tuned.folder / "kept/model").eval()
    assert held_out_loss(model, tuned.assignment) == pytest.approx(held_out["loss_after"], rel=1e-5)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert row["saved"]["path"] == str(tuned.folder / "kept/model")


def test_the_saved_folder_is_whole_and_says_where_it_comes_from(tuned: Run) -> None:
    folder = tuned.folder / "kept/model"
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.model", PROVENANCE_FILE} <= names
    assert not [path for path in folder.parent.iterdir() if path != folder]
    (row,) = tuned.rows
    said = json.loads((folder / PROVENANCE_FILE).read_text())
    assert (said["run_id"], said["model"], said["method"]) == (row["run_id"], "mistral-tiny", "full")
    assert row["saved"]["bytes"] > 4 * row["parameters"]


def test_its_completion_is_the_model_s_likeliest(tuned: Run) -> None:
    (row,) = tuned.rows
    completion = row["completion"]
    assert completion["prompt"] == PROMPT
    assert completion["before"] != completion["after"]
    ids = [r["ids"] for r in tuned.records if r["kind"] == "sample"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tuned.folder / "kept/model").eval()
    text = torch.tensor([tuned.assignment.sample_ids])
    found = model.generate(text, max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=2)
    assert found[0, text.shape[1] :].tolist() == ids[1][:8]


def test_nothing_of_it_lies_in_the_timed_part(tuned: Run) -> None:
    (row,) = tuned.rows
    kinds = [r["kind"] for r in tuned.records]
    edges = [i for i, kind in enumerate(kinds) if kind == "edge"]
    beside = [i for i, kind in enumerate(kinds) if kind in ("evaluation", "sample", "saved")]
    assert [kinds[i] for i in beside if i < edges[0]] == ["evaluation", "sample"]
    assert [kinds[i] for i in beside if i > edges[-1]] == ["evaluation", "sample", "saved"]
    assert len(beside) == 5
    # What is done beside is no set-up, and no part of the time to the first step.
    assert "looked_after" not in row["setup_s"]
    assert "saved" not in row["setup_s"]
    instants = {r["name"]: r["instant_s"] for r in tuned.records if r["kind"] == "phase"}
    looked_s = instants["looked_before"] - instants["data"]
    assert row["time_to_first_step_s"] == pytest.approx(sum(row["setup_s"].values()) - looked_s, rel=0.02)
    # The recount of the token file agrees: what is held out was not trained on.
    assert not [f for f in row["findings"] if f["severity"] == "invalid"], row["findings"]


def test_the_report_shows_all_of_it(tuned: Run) -> None:
    text = (tuned.folder / "out/report.md").read_text()
    assert "### Held-out loss" in text
    assert "### Completions" in text
    assert "def main(" in text
    assert "### Saved models" in text
    assert "before training" in (tuned.folder / "out/report.html").read_text()
    assert (tuned.folder / "out/tables/completions.csv").read_text().startswith("run_id,prompt,")


@pytest.mark.full
def test_what_was_saved_is_not_trained_again_unasked(tuned: Run, run: Callable[..., Run]) -> None:
    words = ["--model", "mistral-tiny", "--evaluate", str(HELD_OUT), "--sample", PROMPT, "--save", "kept/model"]
    again = run(tuned.folder, *words)
    assert again.rows[0]["saved"] == tuned.rows[0]["saved"]
    assert len(list(tuned.folder.glob("runs/*/*/plan.json"))) == 1
    # Another run may not have the folder, and neither may this one twice.
    for other in (["--redo"], ["--seed", "1"]):
        refused = run(tuned.folder, *words, *other)
        assert (refused.done.returncode, refused.done.stdout) == (2, "")
        assert "nothing is overwritten" in refused.done.stderr
        assert "Traceback" not in refused.done.stderr


def _again(tuned: Run, run: Callable[..., Run], folder: Path, *words: str) -> Run:
    model = ["--model", f"hf:{tuned.folder / 'kept/model'}", "--evaluate", str(HELD_OUT), "--save", "model"]
    return run(folder, *model, *words)


@pytest.mark.full
def test_what_was_saved_is_where_another_run_begins(tuned: Run, run: Callable[..., Run], tmp_path: Path) -> None:
    again = _again(tuned, run, tmp_path, "--weights", "pretrained")
    (row,) = again.rows
    assert row["parameters"] == tuned.rows[0]["parameters"]
    assert row["held_out"]["loss_before"] == pytest.approx(tuned.rows[0]["held_out"]["loss_after"], rel=1e-6)
    assert row["held_out"]["loss_after"] < row["held_out"]["loss_before"]
    random = run(tmp_path, "--model", f"hf:{tuned.folder / 'kept/model'}", "--evaluate", str(HELD_OUT))
    assert random.rows[0]["held_out"]["loss_before"] > 10
    assert "--weights pretrained" in random.done.stderr


@pytest.mark.full
def test_adapters_are_merged_into_what_is_saved(tuned: Run, run: Callable[..., Run], tmp_path: Path) -> None:
    again = _again(tuned, run, tmp_path, "--weights", "pretrained", "--method", "lora:r=4")
    (row,) = again.rows
    assert row["held_out"]["loss_after"] < row["held_out"]["loss_before"]
    model, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loss = held_out_loss(model.eval(), again.assignment)
    assert loss == pytest.approx(row["held_out"]["loss_after"], rel=1e-5)


def _strategies() -> Sequence[tuple[str, str, list[str]]]:
    return [
        ("mistral-tiny", "ddp", []),
        ("mistral-tiny", "fsdp", ["--method", "lora:r=4"]),
        ("mistral-tiny", "fsdp:reshard=false", []),
        ("gpt2-tiny", "tp", []),
        ("phi-3-tiny", "tp:sequence_parallel=true", []),
        ("gpt2-tiny", "pp", ["--micro-batch", "1"]),
        ("mistral-tiny", "pp:schedule=interleaved", ["--micro-batch", "1", "--method", "lora:r=4"]),
    ]


@pytest.mark.full
@pytest.mark.parametrize(("model", "strategy", "more"), _strategies(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_strategy_gives_the_whole_model_back(
    run: Callable[..., Run], tmp_path: Path, model: str, strategy: str, more: list[str]
) -> None:
    """The losses that two processes say, and those of the model that they leave, are of the same weights."""
    words = ["--model", model, "--global-batch", "4", "--evaluate", str(HELD_OUT), "--sample", PROMPT, *more]
    two = ["--device", "cpu:2", "--oversubscribe", "--strategy", strategy, "--save", "model"]
    is_pipeline = strategy.startswith("pp")
    if is_pipeline:
        refused = run(tmp_path, *words, *two)
        assert refused.done.returncode == 2
        assert "cannot evaluate the whole model" in refused.done.stderr
        words = ["--model", model, "--global-batch", "4", *more]
    (tmp_path / "one").mkdir()
    one = run(tmp_path / "one", *words, "--save", "model")
    many = run(tmp_path, *words, *two)
    assert many.done.returncode in (0, 3), many.done.stderr
    ours, theirs = many.rows[0], one.rows[0]
    names = ("loss_first", "loss_last")
    assert [ours[n] for n in names] == pytest.approx([theirs[n] for n in names], rel=1e-4)
    if not is_pipeline:
        for moment in ("loss_before", "loss_after"):
            assert ours["held_out"][moment] == pytest.approx(theirs["held_out"][moment], rel=1e-4)
        assert ours["completion"] == theirs["completion"]
    a, b = (transformers.AutoModelForCausalLM.from_pretrained(f / "model") for f in (tmp_path, tmp_path / "one"))
    with torch.no_grad():
        ids = torch.arange(3, 35)[None]
        torch.testing.assert_close(a(input_ids=ids).logits, b(input_ids=ids).logits, rtol=1e-3, atol=1e-4)
