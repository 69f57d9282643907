"""Ids are those of SentencePiece and of Mistral's own library, whatever the text; ends are characters of that text."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import PluginError
from tunemark.plugin import Tokenizer
from tunemark_mistral import tokenizer as module
from tunemark_mistral.tokenizer import SentencePieceTokenizer, load_v1, load_v3

_WORDS = [
    *("def", "return", "x", "0x1F", "1000000", "!=", '"""', "#", "\\n", "### Output:\n"),
    *("  ", "    ", "\t", "\n", "\n\n\n", "\r\n", " ", "\u00a0", "\u2003", "\u2028", "\u200b", "\x00"),
    *(
        "é",
        "e\u0301",
        "ﬁ",
        "Å",
        "日本語",
        "한국어",
        "עברית",
        "😀",
        "👩\u200d👩\u200d👧",
        "𐍈",
        "\ud7ff",
        "\ufffd",
        "ß",
        "İ",
    ),
    *("▁", "<s>", "</s>", "<unk>", "<0x0A>", "[INST]"),
]
_LOADERS = pytest.mark.parametrize("loader", [load_v1, load_v3])


def _texts(seed: int, count: int = 500) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(_WORDS, k=rng.randrange(40))) for _ in range(count)]


@_LOADERS
def test_is_a_tokenizer(loader: Callable[[], SentencePieceTokenizer]) -> None:
    tokenizer: Tokenizer = loader()
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    assert tokenizer.fingerprint() == loader().fingerprint()
    assert load_v1().fingerprint() != load_v3().fingerprint()


@_LOADERS
def test_ids_are_sentencepieces(loader: Callable[[], SentencePieceTokenizer]) -> None:
    import sentencepiece

    tokenizer = loader()
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    assert reference.get_piece_size() == tokenizer.vocab_size
    assert (reference.bos_id(), reference.eos_id()) == (tokenizer.bos_id, tokenizer.eos_id)
    texts = _texts(1)
    expected = [reference.encode(text) for text in texts]
    assert tokenizer.encode(texts) == expected
    assert [ids for ids, _ in tokenizer.encode_with_ends(texts)] == expected
    assert {type(i) for ids in tokenizer.encode(texts) for i in ids} == {int}


@_LOADERS
def test_ids_are_mistrals(loader: Callable[[], SentencePieceTokenizer]) -> None:
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer as Reference

    tokenizer = loader()
    reference = Reference(str(tokenizer.path))
    texts = _texts(2)
    assert tokenizer.encode(texts) == [reference.encode(text, bos=False, eos=False) for text in texts]


@_LOADERS
def test_ends_are_characters(loader: Callable[[], SentencePieceTokenizer]) -> None:
    texts = _texts(3)
    for text, (ids, ends) in zip(texts, loader().encode_with_ends(texts), strict=True):
        assert len(ids) == len(ends)
        assert ends == sorted(ends)
        if text:
            assert ends[0] >= 1
            assert ends[-1] == len(text)


@_LOADERS
def test_every_byte_of_a_character_ends_with_it(loader: Callable[[], SentencePieceTokenizer]) -> None:
    # U+10348 has no piece of its own: four bytes, and Python counts it as one character.
    ((ids, ends),) = loader().encode_with_ends(["a𐍈b"])
    assert ends == [1, 2, 2, 2, 2, 3]
    assert len(ids) == 6


def test_both_forms_of_offsets_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """sentencepiece before 0.2.2 gives protos; the installed one gives mappings. Stood in for by the same numbers."""

    class _Piece:
        def __init__(self, id: int, span: tuple[int, int]) -> None:
            self.id, (self.begin, self.end) = id, span

    class _Proto:
        def __init__(self, mapping: dict[str, Any]) -> None:
            self.pieces = [_Piece(*pair) for pair in zip(mapping["ids"], mapping["offsets"], strict=True)]

    class _Former:
        def encode(self, texts: list[str], *, out_type: str, num_threads: int) -> list[_Proto]:
            assert out_type == "immutable_proto"
            mappings = load_v1()._processor.encode(texts, out_type="offset_mapping", num_threads=num_threads)
            return [_Proto(mapping) for mapping in mappings]

    if not module._has_offset_mapping():
        pytest.skip("this is sentencepiece before 0.2.2 itself")
    expected = load_v1().encode_with_ends(_texts(4))
    monkeypatch.setattr(module, "_has_offset_mapping", lambda: False)
    former = load_v1()
    former.__dict__["_processor"] = _Former()
    assert former.encode_with_ends(_texts(4)) == expected


def test_no_texts() -> None:
    assert load_v1().encode([]) == []
    assert load_v1().encode_with_ends([]) == []
    assert load_v1().encode_with_ends([""]) == [([], [])]


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match="mistral_common is not installed"):
        load_v1()


def test_another_model_is_refused() -> None:
    wrong = SentencePieceTokenizer(name="wrong", path=Path(load_v3().path), vocab_size=32000)
    with pytest.raises(PluginError, match="32768 pieces instead of 32000"):
        wrong.encode(["a"])
