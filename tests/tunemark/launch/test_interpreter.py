"""What a plan can know of the worker's interpreter is refused before anything runs: versions, Python, model types.

The interpreters are real ones with packages that consist of their metadata; tests/end_to_end/test_real_interpreters.py
has real packages.
"""

from __future__ import annotations

import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunemark
from tunemark.errors import BadExperiment
from tunemark.launch import check_plans, query_interpreter
from tunemark.plugin import Catalog
from tunemark.predict.layout_choice import predict_candidates
from tunemark.predict.search_problem import make_search_problem
from tunemark.version_order import is_older

Made = Callable[..., str]

_TYPES = """
# as in transformers
MODEL_FOR_MASKED_LM_MAPPING_NAMES = OrderedDict(
    [
        ("bert", "BertForMaskedLM"),
    ]
)

MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict(
    [
        # Model for Causal LM mapping
        ("gpt2", "GPT2LMHeadModel"),
        ("llama", "LlamaForCausalLM"),
        (
            "a-long-one",
            "SomethingForCausalLM",
        ),
    ]
)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """made(torch="2.1.0", transformers="4.46.3", types=...): the path of an interpreter that has these."""

    def make(*, types: str | None = _TYPES, **versions: str) -> str:
        folder = tmp_path_factory.mktemp("python")
        venv.create(folder, symlinks=True, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        for name, version in versions.items():
            (site / name).mkdir()
            (site / name / "__init__.py").write_text("raise ImportError('it must not be imported')")
            (site / f"{name}-{version}.dist-info").mkdir()
            words = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (site / f"{name}-{version}.dist-info/METADATA").write_text(words)
        if types is not None:
            auto = site / "transformers/models/auto"
            auto.mkdir(parents=True)
            (auto / "modeling_auto.py").write_text(types)
        return str(folder / "bin/python")

    return make


@pytest.fixture(scope="module")
def old(made: Made) -> str:
    return made(torch="2.1.0+moreh25.1.202", transformers="4.46.3")


def _plan(python: str | None, **settings: Any) -> list[Any]:
    return tunemark.plan(
        **{"model": "llama-2-tiny", "device": "cpu:2", "oversubscribe": True, "python": python, **settings}
    )


def test_an_interpreter_is_asked_without_importing_anything(old: str) -> None:
    found = query_interpreter(old, ["torch", "transformers"])
    assert found.versions == {"torch": "2.1.0+moreh25.1.202", "transformers": "4.46.3"}
    assert found.model_types == {"gpt2", "llama", "a-long-one"}


def test_the_types_of_the_transformers_at_hand_are_found() -> None:
    known = query_interpreter(sys.executable, ["transformers"]).model_types
    assert known is not None
    assert {"mistral", "llama", "gpt2", "gpt_neox", "qwen3"} <= known
    assert not {"t5", "vit"} & known


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"strategy": "fsdp"}, "strategy 'fsdp' needs torch 2."),
        ({"strategy": "tp"}, "strategy 'tp' needs torch 2."),
        ({"strategy": "pp"}, "strategy 'pp' needs torch 2."),
        ({"device": "cpu:4", "strategy": "ddp:2+tp:2"}, "strategy 'ddp:2+tp:2' needs torch 2."),
        ({"checkpointing": "selective"}, "selective checkpointing needs torch 2.4"),
        ({"optimizer": "adafactor"}, "adafactor needs torch 2.5"),
    ],
)
def test_what_is_newer_than_the_interpreter_is_refused_by_the_plan(
    old: str, settings: dict[str, Any], what: str
) -> None:
    with pytest.raises(BadExperiment) as caught:
        _plan(old, **{"strategy": "ddp", **settings})
    assert what in caught.value.what
    assert caught.value.why == f"{old} has torch 2.1.0+moreh25.1.202"
    assert "another --python" in caught.value.next


def test_a_family_that_the_interpreter_s_transformers_lacks_is_refused_by_the_plan(old: str, made: Made) -> None:
    assert _plan(old, strategy="ddp")
    with pytest.raises(BadExperiment) as caught:
        _plan(old, model="mistral-tiny", strategy="ddp")
    assert "no model of type 'mistral'" in caught.value.what
    assert "transformers 4.46.3" in caught.value.why
    # What cannot be known is not refused.
    assert _plan(made(torch="2.13.0", transformers="9.0", types="the table is elsewhere"), model="mistral-tiny")


def test_attention_that_falls_back_is_said_before_anything_runs(old: str, made: Made) -> None:
    (remark,) = check_plans(_plan(old, strategy="ddp", batching=["pack", "pad"]))
    assert "eagerly" in remark
    assert "2.1.0" in remark
    assert check_plans(_plan(made(torch="2.1.1", transformers="4.46.3"), strategy="ddp")) == []
    # This model is never computed otherwise.
    eager = made(torch="2.1.0", transformers="4.46.3", types=_TYPES.replace("gpt2", "gemma2"))
    assert check_plans(_plan(eager, model="gemma-2-tiny", strategy="ddp")) == []


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    reply = '{"python": "3.7.16", "found": {}, "versions": {}, "model_types": null}'
    python.write_text(f"#!/bin/sh\necho '{reply}'\n")
    python.chmod(0o755)
    with pytest.raises(BadExperiment) as caught:
        query_interpreter(str(python), ["torch"])
    assert caught.value.what == "the worker needs Python 3.8 or newer"
    assert "3.7.16" in caught.value.why


def test_a_search_considers_only_what_the_interpreter_can_train(made: Made) -> None:
    def strategies(torch: str) -> set[str]:
        python = made(torch=torch, transformers="4.46.3")
        (plan,) = _plan(python, device="cpu:4", strategy="auto", global_batch=16)
        found = predict_candidates(plan, make_search_problem(plan, Catalog())).ranked
        return {name for each in found for name in each.candidate.names}

    assert strategies("2.1.0") == {"none", "ddp"}
    assert strategies("2.6.0") == {"none", "ddp", "tp"}
    assert strategies("2.13.0") == {"none", "ddp", "tp", "fsdp", "pp"}
    assert is_older("2.9", "2.13")
    assert not is_older("2.4.0+cu121", "2.4")
    assert not is_older("2.4", "2.4.0")


def test_a_plan_says_what_a_run_here_would_lack() -> None:
    (plan,) = _plan(None)
    assert check_plans([plan]) == []
    plan = replace(plan, model=replace(plan.model, requires=("no_such_module",)))
    (remark,) = check_plans([plan])
    assert remark.endswith("lacks no_such_module: a run is refused here until `pip install no_such_module`")
