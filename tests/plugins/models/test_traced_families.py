"""Built-in models without a formula: their published sizes, and facts that the installed transformers confirms."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

from tunemark.physics import count_parameters
from tunemark_models import traced_families
from tunemark_models.model_trace import trace_config
from tunemark_models.runtime import prepare_for_training

_MODELS = {model.name: model for model in traced_families.traced_models()}
_FACTS = json.loads(Path(traced_families.__file__).with_suffix(".json").read_text())


# Parameters as their repositories state them; of DeepSeek-V3 without the head for a second token.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3-30b-a3b", 30_532_122_624),
        ("qwen3-235b-a22b", 235_093_634_560),
        ("deepseek-v3", 671_026_404_352),
        ("gpt-oss-20b", 20_914_757_184),
        ("gpt-oss-120b", 116_829_156_672),
        ("glm-4-9b", 9_400_279_040),
        ("gemma-3-1b", 999_885_952),
        ("smollm3-3b", 3_075_098_624),
        ("exaone-4.0-1.2b", 1_279_391_488),
        ("falcon-h1-0.5b", 521_411_104),
        ("falcon-h1-1.5b", 1_554_789_760),
        ("falcon-h1-7b", 7_585_513_568),
        ("ministral-3-3b-base", 3_429_006_336),
        ("ministral-3-8b-base", 8_489_553_920),
        ("olmoe-1b-7b", 6_919_161_856),
        ("granite-4.0-micro", 3_402_836_480),
        ("granite-4.0-h-tiny", 6_939_037_248),
        ("granite-4.0-h-small", 32_207_337_984),
    ],
)
def test_parameters_are_those_of_the_published_model(name: str, parameters: int) -> None:
    assert count_parameters(_MODELS[name].architecture).total == parameters


# gpt-oss's card does not count the embedding.
@pytest.mark.parametrize(
    ("name", "active"),
    [("qwen3-30b-a3b", 3.3e9), ("deepseek-v3", 37e9), ("gpt-oss-20b", 3.61e9), ("olmoe-1b-7b", 1.3e9)],
)
def test_active_parameters_are_those_of_the_published_model(name: str, active: float) -> None:
    counts = count_parameters(_MODELS[name].architecture)
    counted = counts.active - (counts.embedding if name.startswith("gpt-oss") else 0)
    assert counted == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize("name", ["glm-4-tiny", "qwen3-moe-tiny"])
def test_the_facts_are_those_of_the_installed_transformers(name: str) -> None:
    stated: dict[str, Any] = copy.deepcopy(_FACTS[name]["configuration"])
    kind = stated.pop("model_type")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = trace_config(prepare_for_training(transformers.AutoConfig.for_model(kind, **stated)))
    assert json.loads(json.dumps({**found, "versions": {}})) == {**_FACTS[name]["trace"], "versions": {}}


def test_every_model_has_a_name_of_its_own_and_a_tiny_one_of_its_family() -> None:
    assert len(_MODELS) == len(traced_families.traced_models())
    families = {model.architecture.model_type for model in _MODELS.values()}
    assert {
        m.architecture.model_type for m in _MODELS.values() if m.pretrained is None and "tiny" in m.name
    } == families
