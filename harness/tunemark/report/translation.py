"""Translation of a report's texts: English as written in the source, and a gettext catalogue for each other language.

To change an English text, edit it where it stands and run the program tests/tunemark/report/test_translation.py.
It carries the translation over to the new text, marked fuzzy for translators; until they have read it, it is used as it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Literal, get_args

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Translate = Callable[..., str]
"""(English text, **values) -> the text in a language, with its {names} filled in."""


def parse_language(name: str) -> Language:
    """The language of a setting's value, which is always one of LANGUAGES."""
    return next(each for each in LANGUAGES if each == name)


def make_translator(language: Language) -> Translate:
    """A function that translates into a language. It raises KeyError for a text that the catalogue lacks."""
    texts = None if language == "en" else read_catalogue(language)

    def translate(text: str, /, **values: object) -> str:
        found = text if texts is None else texts[text]
        return found.format(**values) if values else found

    return translate


@cache
def read_catalogue(language: Language) -> Mapping[str, str]:
    """The translations into a language, by their English text."""
    from babel.messages.pofile import read_po  # not needed for English

    with resources.files("tunemark.report").joinpath(f"{language}.po").open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file) if message.id and message.string}
