"""A report's texts in the reader's language: English as it is written, and one catalogue for each other language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from tunemark.report.korean import KOREAN

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Say = Callable[..., str]
"""(text, **values) -> the text in a language, its {names} filled in."""


def language(name: str) -> Language:
    """The language of a setting, which allows no other name."""
    return next(each for each in LANGUAGES if each == name)


def words(language: Language) -> Say:
    """What says a text in a language. A text that its catalogue lacks is a KeyError: half a translation is a bug."""

    def say(text: str, /, **values: object) -> str:
        found = text if language == "en" else KOREAN[text]
        return found.format(**values) if values else found

    return say
