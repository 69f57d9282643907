"""Finds the models and chips that words name: in a sentence, in a header, in a cell."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tunemark.physics.chip_peaks import find_chip, is_chip
from tunemark.physics.published_models import find_published_model, make_model_key
from tunemark.plugin import Catalog

_SIZE = r"(?:[0-9]{1,3}x)?[0-9]{1,4}(?:\.[0-9]{1,3})?[bBmM](?:-[aA][0-9.]+[bB])?"
_MODEL = re.compile(rf"((?:[A-Za-z][\w.-]*[ -]){{0,2}}(?:[A-Za-z][\w.]*-?|[0-9](?:\.[0-9])?)[ -])?({_SIZE})(?![\w])")
_VERB = r"^(?:train(?:ing|ed)?|fine-?tun(?:e|ing|ed)|running|on|of|a|an|the|with|for|our|we|i|got|lora|full|a new)\s+"
_WORD = re.compile(r"[^\s,;:()]+")


def find_model_words(text: str) -> tuple[int, int, str] | None:
    """The longest words that name a model, or end in a size: their place, and the model's name."""
    found = next(models_in(text), None)
    if found is None and (sized := find_sized_words(text)) is not None:
        return *sized, text[slice(*sized)]
    return found


def models_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Words that name an installed or a published model, the longest first."""
    for start, end, words in _spans(text, 5):
        if (name := _model_of(words)) is not None:
            yield start, end, name


@functools.lru_cache(maxsize=4096)
def _model_of(words: str) -> str | None:
    size, _, family = words.partition(" ")
    # The size before the name, as in `70B Llama 2`.
    turned = [f"{family} {size}"] if family and re.fullmatch(_SIZE, size) else []
    for name in (words, *turned):
        key = make_model_key(name)
        if key == make_model_key(name.rpartition(" ")[0]):
            # The last word is no part of the name.
            continue
        if key in _model_names():
            return _model_names()[key]
        if (published := find_published_model(name)) is not None:
            return published.name
    return None


def find_sized_words(text: str) -> tuple[int, int] | None:
    """The place of the first words that end in a size, without verbs and articles before them."""
    match = _MODEL.search(text)
    if match is None:
        return None
    words = re.sub(_VERB, "", match[0], flags=re.I)
    while (shorter := re.sub(_VERB, "", words, flags=re.I)) != words:
        words = shorter
    return match.end() - len(words), match.end()


@functools.cache
def _model_names() -> dict[str, str]:
    """The installed models by the keys of their names and hub ids; the first of several counts."""
    found: dict[str, str] = {}
    for model in Catalog().models().values():
        for name in (model.name, model.pretrained or ""):
            if name:
                found.setdefault(make_model_key(name), model.name)
    return found


def _spans(text: str, most: int) -> Iterator[tuple[int, int, str]]:
    """Runs of words, the longest first."""
    words = list(_WORD.finditer(text))
    for length in range(most, 0, -1):
        for at in range(len(words) - length + 1):
            start, end = words[at].start(), words[at + length - 1].end()
            yield start, end, text[start:end].strip("'\".")


def find_chip_words(text: str) -> tuple[int, int, str] | None:
    """The longest words that name a chip: their place, and the chip's name."""
    text = _glued(text)
    for start, end, words in _spans(text, 4):
        # A count before it is no part of its name; a bare number is no chip.
        if re.match(r"[0-9]+\s*[xX\u00d7*]?\s*[A-Za-z]", words) or not re.search(r"[A-Za-z]", words):
            continue
        if re.match(r"(?:gpus?|devices?|chips?|accelerators?|npus?|cards?)\W*\s", words, re.I):
            # `tokens/s per GPU (A100)`: the first word is of the unit.
            continue
        for name in (words, words.removesuffix("s")):
            if is_chip(name):
                return start, end, find_chip(name).name
    return None


def _glued(text: str) -> str:
    """The text with `8xH100` as two words of the same places."""
    return re.sub(r"(?<![\w.])([0-9]{1,6})[xX\u00d7*](?=[A-Za-z])", lambda m: f"{m[1]} ", text)
