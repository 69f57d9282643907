"""The families that people fine-tune, each with its public sizes and a tiny member for two CPU cores. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Model, ModelSource
from tunemark.plugin.hooks import hookimpl
from tunemark_models import families


@hookimpl
def tunemark_models() -> Sequence[Model]:
    each = (
        families.llama, families.smollm2, families.qwen, families.gemma2, families.mixtral, families.phi3,
        families.olmo2, families.gpt2, families.baichuan,
    )  # fmt: skip
    return [model for family in each for model in family()]


@hookimpl
def tunemark_model_sources() -> Sequence[ModelSource]:
    words = "a folder with a config.json, or a repository on the hub"
    return [ModelSource(name="hf", loader="tunemark_models.hf:model", description=words)]
