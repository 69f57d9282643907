"""Mistral's SentencePiece tokenizers, from the model files that mistral_common ships; its code is not imported.

Text is encoded by sentencepiece itself. Other loaders of the same file merge runs of blanks differently, which matters
for source code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import PluginError


class SentencePieceTokenizer:
    """A SentencePiece model file, loaded when first used. vocab_size: the size that one of Mistral's files must have;
    None for any other file, which states its special ids itself.

    Without a padding token, slots are filled with eos: they are masked and never trained on.
    """

    def __init__(self, *, name: str, path: Path, vocab_size: int | None) -> None:
        self.name = name
        self.path = path
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size()) if self._vocab_size is None else self._vocab_size

    @property
    def bos_id(self) -> int | None:
        return 1 if self._vocab_size is not None else _id_or_none(self._processor.bos_id())

    @property
    def eos_id(self) -> int | None:
        return 2 if self._vocab_size is not None else _id_or_none(self._processor.eos_id())

    @property
    def pad_id(self) -> int:
        found = None if self._vocab_size is not None else _id_or_none(self._processor.pad_id())
        return found if found is not None else self.eos_id or 0

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        major = importlib.metadata.version("sentencepiece").partition(".")[0]
        return f"{digest}/sentencepiece-{major}"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # sentencepiece 0.2.2 cannot tell the type of an empty list.
        if not texts:
            return []
        ids: list[list[int]] = self._processor.encode(list(texts), out_type=int, num_threads=-1)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))

    def files(self) -> Mapping[str, bytes]:
        """Only the model file, without transformers settings: transformers would merge runs of blanks differently."""
        return {"tokenizer.model": self.path.read_bytes()}

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """See the protocol; each byte token of a character ends where the character ends."""
        return [(ids, _character_ends(spans)) for ids, spans in self._encode_with_spans(list(texts))]

    def _encode_with_spans(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if not texts:
            return []
        if _has_offset_mapping():
            mappings = self._processor.encode(texts, out_type="offset_mapping", num_threads=-1)
            return [(m["ids"], m["offsets"]) for m in mappings]
        protos = self._processor.encode(texts, out_type="immutable_proto", num_threads=-1)
        return [([p.id for p in proto.pieces], [(p.begin, p.end) for p in proto.pieces]) for proto in protos]

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(self.path))
        found = processor.get_piece_size()
        if self._vocab_size is not None and found != self._vocab_size:
            raise PluginError(
                what=f"the tokenizer {self.name!r} has {found} pieces instead of {self._vocab_size}",
                why=f"read from {self.path}",
                next="reinstall mistral-common",
            )
        return processor


def _id_or_none(number: int) -> int | None:
    return None if number < 0 else number


def load_v1() -> SentencePieceTokenizer:
    """The tokenizer of Mistral 7B v0.1: 32,000 pieces."""
    return SentencePieceTokenizer(name="mistral-v1", path=_find_shipped_file("tokenizer.model.v1"), vocab_size=32000)


def load_v3() -> SentencePieceTokenizer:
    """The tokenizer of Mistral 7B v0.3: 768 control tokens, never encoded from plain text, then the pieces of v1."""
    path = _find_shipped_file("mistral_instruct_tokenizer_240323.model.v3")
    return SentencePieceTokenizer(name="mistral-v3", path=path, vocab_size=32768)


def _character_ends(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Where each piece's text ends. SentencePiece gives a character's width to its last byte token and no width to the
    others, nor to the blank that it puts before a text: those end with the next piece that has a width."""
    ends = [end for _, end in spans]
    for i in range(len(spans) - 2, -1, -1):
        if spans[i][0] == spans[i][1]:
            ends[i] = ends[i + 1]
    return ends


@functools.cache
def _has_offset_mapping() -> bool:
    """Whether sentencepiece is 0.2.2 or newer, where "offset_mapping" replaced "immutable_proto"."""
    numbers = importlib.metadata.version("sentencepiece").split(".")[:3]
    return [int(n) for n in numbers if n.isdigit()] >= [0, 2, 2]


def _find_shipped_file(name: str) -> Path:
    spec = importlib.util.find_spec("mistral_common")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "data" / name
        if path.is_file():
            return path
    raise PluginError(
        what=f"the tokenizer model {name!r} is missing",
        why=f"looked for data/{name} in {', '.join(folders)}" if folders else "mistral_common is not installed",
        next="pip install 'mistral-common>=1.5'",
    )
