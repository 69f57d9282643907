"""The table of published models: dimensions make the parameters that are published, names lead to one model."""

from __future__ import annotations

import pytest

from tunemark.physics import count_parameters
from tunemark.physics.published_models import find_published_model, make_model_key, published_models
from tunemark.plugin import Catalog

_MODELS = {model.name: model for model in published_models().values()}


@pytest.mark.parametrize("name", sorted(name for name, model in _MODELS.items() if model.architecture is not None))
def test_dimensions_make_the_published_parameters(name: str) -> None:
    model = _MODELS[name]
    assert model.architecture is not None
    # Biases, norms and positions are left out.
    assert count_parameters(model.architecture).total == pytest.approx(model.parameters, rel=0.012)


def test_each_row_has_dimensions_parameters_or_an_installed_model() -> None:
    installed = Catalog().models()
    for model in _MODELS.values():
        assert (model.parameters is None) != (model.same_as is None), model.name
        assert model.same_as is None or model.same_as in installed, model.name
        assert model.source


def test_no_name_is_that_of_another_installed_model() -> None:
    installed = list(Catalog().models())
    for key, model in published_models().items():
        for name in installed:
            is_it = model.same_as is not None and make_model_key(model.same_as) == key
            assert make_model_key(name) != key or is_it, (key, name)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("tiiuae/falcon-40b-instruct", "falcon-40b"), ("Falcon 40B", "falcon-40b"), ("LLaMA-65B", "llama-65b"),
        ("Meta-Llama-3.1-405B-Instruct", "llama-3.1-405b"), ("Mistral-Nemo-Base-2407", "mistral-nemo"),
        ("Phi-3-mini-128k-instruct", "phi-3-mini-128k"),
        ("Phi-3-mini", "phi-3-mini"), ("Qwen2-7B", "qwen2-7b"), ("GPT-3", "gpt-3"),
        ("unsloth/gemma-7b-bnb-4bit", "gemma-7b"), ("llama-4-behemoth", None), ("GPT-4", None), ("Phi-3", None),
        ("Mistral-Small", None),
        ("falcon-9b", None),
    ],
)  # fmt: skip
def test_names_in_any_spelling(stated: str, name: str | None) -> None:
    found = find_published_model(stated)
    assert (found.name if found else None) == name
