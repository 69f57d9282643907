"""The datasets: instructions, conversations and text from files, Python instructions from the hub and from the standard
library, and random token ids. The dataset modules are imported for their options and import nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Dataset
from tunemark.plugin.hooks import hookimpl
from tunemark_datasets import chat, instructions, text


@hookimpl
def tunemark_datasets() -> Sequence[Dataset]:
    return [
        Dataset(
            name="python-code-alpaca",
            loader="tunemark_datasets.python_code_alpaca:load",
            description="18,612 Python instructions with answers (iamtarun/python_code_instructions_18k_alpaca)",
            options={
                "path": "a parquet, json or jsonl file, or a folder of them, instead of the hub",
                "revision": "a commit, branch or tag of the hub repository",
            },
        ),
        Dataset(
            name=instructions.NAME,
            loader="tunemark_datasets.instructions:load",
            description="instructions with answers, from any table with columns for them",
            options=instructions.OPTIONS,
        ),
        Dataset(
            name=chat.NAME,
            loader="tunemark_datasets.chat:load",
            description="conversations from any table with a column of messages, by the tokenizer's chat template",
            options=chat.OPTIONS,
            is_chat=True,
        ),
        Dataset(
            name=text.NAME,
            loader="tunemark_datasets.text:load",
            description="plain text of any size, from a file or a folder",
            options=text.OPTIONS,
        ),
        Dataset(
            name="python-stdlib",
            loader="tunemark_datasets.python_stdlib:load",
            description="docstrings as instructions, sources as answers, from Python's standard library; no network",
        ),
        Dataset(
            name="synthetic",
            loader="tunemark_datasets.synthetic_documents:load",
            description="uniformly random token ids in documents of lognormal length; nothing to learn",
            options={
                "documents": "number of documents (2000)",
                "mean": "mean length in tokens, before cutting at longest (200)",
                "sigma": "standard deviation of the length's logarithm; 0 makes all lengths equal (0.7)",
                "longest": "tokens to which longer documents are cut (4096)",
                "seed": "random seed of lengths and ids (0)",
            },
            needs_tokenizer=False,
            roles=("response",),
            learnable=False,
        ),
    ]
