"""A dataset and a tokenizer, which run in the parent process without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemark.plugin import Example, ExamplePiece


class ToyText:
    """Sums of small numbers. `--train-on response` does not train on the prompts."""

    def __init__(self, options: Mapping[str, str], vocab_size: int) -> None:
        self._examples = int(options.get("examples", "48"))

    def fingerprint(self) -> str:
        """Must change whenever an example does: it is the cache key of the prepared tokens."""
        return f"toy-text-1-{self._examples}"

    def facts(self) -> Mapping[str, Any]:
        return {"examples": self._examples}

    def examples(self) -> Iterator[Example]:
        for n in range(self._examples):
            a, b = n % 7, n // 7
            prompt = ExamplePiece(role="prompt", text=f"How much is {a} + {b}?\n")
            yield Example(pieces=(prompt, ExamplePiece(role="response", text=f"{a} + {b} = {a + b}\n")))


class ByteTokenizer:
    """UTF-8 bytes as ids, plus one id each for begin, end and padding."""

    name = "bytes"
    vocab_size = 259
    bos_id: int | None = 256
    eos_id: int | None = 257
    pad_id = 258

    def fingerprint(self) -> str:
        return "utf-8"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """All bytes of a character have the character's end."""
        ends = [[n for n, c in enumerate(text, 1) for _ in c.encode()] for text in texts]
        return list(zip(self.encode(texts), ends, strict=True))
