"""Datasets of one's own files (instructions, conversations, text), instructions from the hub and from Python's own
sources, and random ids. Options are those of the modules, which import nothing heavy."""

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
                "revision": "a commit, branch or tag of the hub's repository",
            },
        ),
        Dataset(
            name=instructions.NAME,
            loader="tunemark_datasets.instructions:load",
            description="instructions with answers, of any table with columns for them",
            options=instructions.OPTIONS,
        ),
        Dataset(
            name=chat.NAME,
            loader="tunemark_datasets.chat:load",
            description="conversations, of any table with a column of messages, by the tokenizer's chat template",
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
            description="docstrings as instructions, sources as answers, from the running Python's library; no network",
        ),
        Dataset(
            name="synthetic",
            loader="tunemark_datasets.synthetic:load",
            description="uniformly random ids in documents of lognormal length; nothing to learn",
            options={
                "documents": "how many (2000)",
                "mean": "of the lognormal distribution of lengths, in tokens, before cutting at longest (200)",
                "sigma": "standard deviation of the length's logarithm; 0 makes all lengths equal (0.7)",
                "longest": "longer documents are cut to so many tokens (4096)",
                "seed": "another seed gives other lengths and ids (0)",
            },
            needs_tokenizer=False,
            roles=("response",),
            learnable=False,
        ),
    ]
