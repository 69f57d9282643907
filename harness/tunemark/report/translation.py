"""Translation of a report's texts: English as written in the source, and a catalogue for each other language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from tunemark.report.korean import KOREAN

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Translate = Callable[..., str]
"""(English text, **values) -> the text in a language, with its {names} filled in."""


def parse_language(name: str) -> Language:
    """The language of a setting's value, which is always one of LANGUAGES."""
    return next(each for each in LANGUAGES if each == name)


def make_translator(language: Language) -> Translate:
    """A function that translates into a language. It raises KeyError for a text that the catalogue lacks."""

    def translate(text: str, /, **values: object) -> str:
        found = text if language == "en" else KOREAN[text]
        return found.format(**values) if values else found

    return translate
