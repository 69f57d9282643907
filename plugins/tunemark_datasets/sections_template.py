"""The prompt template of iamtarun/python_code_instructions_18k_alpaca: three sections, the last one the answer.

Unlike in Stanford Alpaca, an empty input keeps its heading, and the preamble does not depend on it.
"""

from __future__ import annotations

import re

from tunemark.plugin.descriptors import Example, ExamplePiece

_PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
_OUTPUT_HEADING = re.compile(r"### Output:[ \t]*\n?")


def format_prompt(instruction: str, input: str = "") -> str:
    """The text that comes before the answer."""
    return f"{_PREAMBLE}### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Output:\n"


def make_example(prompt: str, response: str) -> Example:
    return Example(pieces=(ExamplePiece(role="prompt", text=prompt), ExamplePiece(role="response", text=response)))


def split_prompt(text: str, output: str | None = None) -> tuple[str, str] | None:
    """(prompt, response) of a whole text, None if it has no output section.

    The prompt ends where `output` begins, if the text ends with an output section of exactly that; otherwise after the
    first heading, so that a heading inside an answer stays in the answer.
    """
    if output:
        before = text[: len(text) - len(output)]
        if text.endswith(output) and before.endswith("### Output:\n"):
            return before, output
    found = _OUTPUT_HEADING.search(text)
    return (text[: found.end()], text[found.end() :]) if found else None
