"""All formats that are read by their description alone."""

from __future__ import annotations

from tunemark_importers import finetuning_formats, huggingface_formats, pretraining_formats

FORMATS = (*pretraining_formats.FORMATS, *finetuning_formats.FORMATS, huggingface_formats.LLAMA_FACTORY_LOG)


def attribute_of(name: str) -> str:
    """The attribute of `framework_readers` that makes the readers of the format with this name."""
    return name.replace("-", "_").replace(".", "_")
