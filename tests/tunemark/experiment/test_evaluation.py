"""What is asked for beside the timed part, before anything runs: what is refused, held out, and left as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunemark
from tunemark.analysis import comparability
from tunemark.errors import TunemarkError
from tunemark.experiment import check_not_saved_before, check_save_writable, is_saved
from tunemark.results.result import Completion, HeldOutLoss, SavedModel
from tunemark.results.run_rules import check_attention, check_model
from tunemark_mistral.tokenizer import load_v1
from tunemark_worker import row_packing
from tunemark_worker.contract import PROVENANCE_FILE

_RUN: dict[str, Any] = {"model": "mistral-tiny", "device": "cpu:2", "oversubscribe": True}


def _refusal(**words: Any) -> str:
    with pytest.raises(TunemarkError) as error:
        tunemark.plan(**{**_RUN, **words})
    assert error.value.next
    return str(error.value)


def test_a_strategy_that_cannot_is_refused_in_the_plan() -> None:
    assert "'pp' cannot evaluate the whole model" in _refusal(strategy="pp", evaluate=4)
    assert "'pp' cannot evaluate" in _refusal(strategy="pp", sample="def")
    assert "'auto' cannot gather the full weights" in _refusal(strategy="auto", save="model")
    # A product can what all of its axes can.
    four = {"device": "cpu:4", "global_batch": 8}
    assert "'fsdp+pp' cannot evaluate" in _refusal(strategy="fsdp:2+pp:2", evaluate=4, **four)
    (plan,) = tunemark.plan(**{**_RUN, **four}, strategy="fsdp:2+tp:2", evaluate=4, sample="def", save="model")
    assert (plan.spec.evaluate, plan.spec.sample) == (4, "def")
    assert plan.spec.save is not None
    assert Path(plan.spec.save).is_absolute()


def test_nothing_is_overwritten_and_one_run_saves(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").touch()
    assert "it exists already and is not empty" in _refusal(save=str(full))
    assert "it exists already" in _refusal(save=str(full / "thesis.txt"))
    assert "--save keeps one model, but the experiment has 2 runs" in _refusal(save=str(tmp_path / "new"), seed="1,2")
    with pytest.raises(TunemarkError, match="no folder can be created in '/proc'"):
        check_save_writable(tunemark.plan(**_RUN, save="/proc/nowhere/model"))
    check_save_writable(tunemark.plan(**_RUN, save=str(tmp_path / "new/model")))
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert len(tunemark.plan(**_RUN, save=str(tmp_path / "empty"))) == 1


def test_a_folder_that_this_very_run_has_left_is_no_obstacle_but_is_not_redone(tmp_path: Path) -> None:
    words = {**_RUN, "save": str(tmp_path / "model")}
    (plan,) = tunemark.plan(**words)
    check_not_saved_before([plan])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / PROVENANCE_FILE).write_text(json.dumps({"run_id": plan.run_id}))
    assert is_saved(str(tmp_path / "model"), plan.run_id)
    assert tunemark.plan(**words)[0].run_id == plan.run_id
    with pytest.raises(TunemarkError, match="this run has already saved its model there"):
        check_not_saved_before([plan])
    assert "nothing is overwritten" in _refusal(save=words["save"], seed=3)
    for damaged in ("[]", "{", '{"run_id": 1}'):
        (tmp_path / "model" / PROVENANCE_FILE).write_text(damaged)
        assert not is_saved(str(tmp_path / "model"), plan.run_id)


def test_the_run_that_is_timed_part_by_part_neither_completes_nor_saves(tmp_path: Path) -> None:
    timed, parts = tunemark.plan(**_RUN, breakdown=True, evaluate=4, sample="def", save=str(tmp_path / "model"))
    assert (timed.spec.breakdown, timed.spec.sample, timed.spec.save) == (False, "def", str(tmp_path / "model"))
    # It trains on the same documents.
    assert (parts.spec.breakdown, parts.spec.sample, parts.spec.save, parts.spec.evaluate) == (True, None, None, 4)


def test_what_is_permitted_is_no_part_of_what_a_run_is() -> None:
    (plain,), (trusting,) = tunemark.plan(**_RUN), tunemark.plan(**_RUN, trust_remote_code=True, allow_pickle=True)
    assert plain.run_id == trusting.run_id
    assert (trusting.trust_remote_code, trusting.allow_pickle) == (True, True)


def test_runs_with_and_without_are_compared(made_run: Any) -> None:
    plain = made_run()
    told = {"evaluate": 4, "sample": "def", "save": "/tmp/model"}
    beside = made_run(
        held_out=HeldOutLoss(documents=4, tokens=9, loss_before=2.0, loss_after=1.0),
        completion=Completion(prompt="def", before=" a", after=" b"),
        saved=SavedModel(path="/tmp/model", bytes=3),
        **told,
    )
    assert comparability.comparison_key(plain, ()) == comparability.comparison_key(beside, ())


def test_held_out_documents_are_the_same_for_every_seed_and_never_trained_on() -> None:
    lengths = [5, 1, 0, 7, 2, 9, 3]
    held = row_packing.select_held_out(lengths, 2)
    assert held == row_packing.select_held_out(lengths, 2)
    # Whoever holds out more holds out these too, and never what has nothing to predict.
    assert set(held) < set(row_packing.select_held_out(lengths, 4)) <= {0, 3, 4, 5, 6}
    training, kept = row_packing.training_lengths(lengths, 2), row_packing.held_out_lengths(lengths, 2)
    assert [a + b for a, b in zip(training, kept, strict=True)] == lengths
    assert {i for i, n in enumerate(kept) if n} == set(held)
    for seed in range(5):
        for _, row in row_packing.make_batch_rows(training, 8, "pack", seed, 1):
            assert not {part.document for part in row} & set(held)
    assert row_packing.training_lengths(lengths, 0) == lengths
    with pytest.raises(ValueError, match="cannot be held out: 5 have two tokens or more"):
        row_packing.select_held_out(lengths, 5)


def test_a_completion_keeps_the_blank_that_it_begins_with() -> None:
    from tunemark.runner.attempt import decode_completion

    tokenizer = load_v1()
    prompt, whole = (tokenizer.encode([text])[0] for text in ("def main", "def main pass it"))
    assert whole[: len(prompt)] == prompt
    assert tokenizer.decode(whole[len(prompt) :])[0] != " "
    assert decode_completion(tokenizer, [1, *prompt], whole[len(prompt) :]) == " pass it"
    assert decode_completion(tokenizer, prompt, []) == ""


def test_a_module_that_is_not_the_plan_s_is_found_out() -> None:
    built = {"parameters": 10, "trainable_parameters": 4}
    assert check_model(10, 4, built) is None
    assert check_model(10, 4, None) is None
    finding = check_model(10, 5, built)
    assert finding is not None
    assert finding.severity == "invalid"
    assert "10 parameters, 4 of them trained; the plan said 10 and 5" in finding.message


def test_attention_that_fell_back_is_a_note() -> None:
    assert check_attention(None) is None
    assert check_attention({"attention": None}) is None
    assert check_attention({"attention": {"kernel": "eager", "reason": None}}) is None
    finding = check_attention({"attention": {"kernel": "eager", "reason": "torch is old"}})
    assert finding is not None
    assert finding.severity == "note"
    assert "eager: torch is old" in finding.message


def test_an_attempt_is_told_what_its_number_is_for(tmp_path: Path) -> None:
    from tunemark_worker.contract import TokenFile

    (plan,) = tunemark.plan(**_RUN, evaluate=4, save=str(tmp_path / "model"))
    file = TokenFile(path="t", sha256="", documents=1, tokens=1, pad_id=0)
    first = plan.assignment(file, "a", measure_peak=False, sample_ids=[1, 2], eos_id=2)
    last = plan.assignment(file, "a", measure_peak=False, is_saving=True)
    assert (first.save, last.save) == (None, str(tmp_path / "model"))
    assert (first.evaluate, first.sample_ids, first.eos_id) == (4, [1, 2], 2)
    none = replace(plan, spec=replace(plan.spec, evaluate=None, save=None))
    told = none.assignment(file, "a", measure_peak=False, is_saving=True)
    assert (told.evaluate, told.sample_ids, told.save) == (0, [], None)
