"""Model families with their published sizes and a tiny model for two CPU cores each, and the source `hf:`. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Model, ModelSource
from tunemark.plugin.hooks import hookimpl
from tunemark_models import families, traced_families


@hookimpl
def tunemark_models() -> Sequence[Model]:
    makers = (
        families.llama, families.smollm2, families.qwen, families.gemma2, families.mixtral, families.phi3,
        families.olmo2, families.gpt2, families.baichuan,
    )  # fmt: skip
    found = [*(model for make in makers for model in make()), *traced_families.traced_models()]
    return [families.with_support(model) for model in found]


@hookimpl
def tunemark_model_sources() -> Sequence[ModelSource]:
    description = "a folder with a config.json, or a repository on the hub"
    return [
        ModelSource(
            name="hf", loader="tunemark_models.hf_config:read_hf_model", description=description, takes_python=True
        )
    ]
