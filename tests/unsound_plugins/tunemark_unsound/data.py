"""Datasets and a tokenizer with one fault each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemark_example.text import ByteTokenizer

from tunemark.plugin import Example, ExamplePiece


class Padded:
    """Pads every document to 32 ids."""

    def __init__(self, options: Mapping[str, str], vocab_size: int) -> None:
        pass

    def fingerprint(self) -> str:
        return "padded"

    def facts(self) -> Mapping[str, Any]:
        return {}

    def examples(self) -> Iterator[Example]:
        for n in range(20):
            ids = [1 + (n * i) % 50 for i in range(8 + n)]
            yield Example(pieces=(ExamplePiece(ids=tuple(ids + [0] * (32 - len(ids)))),))


class Moving(Padded):
    """Draws new examples each time, with the same fingerprint."""

    def examples(self) -> Iterator[Example]:
        for _ in range(20):
            yield Example(pieces=(ExamplePiece(ids=tuple(random.sample(range(100), 9))),))


class Padding(ByteTokenizer):
    """Pads the shorter texts of a call."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids = super().encode(texts)
        longest = max(map(len, ids))
        return [each + [self.pad_id] * (longest - len(each)) for each in ids]
