"""Options as a log repeats them: a command line, argparse's Namespace, or one option to a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunemark_importers.numbers import number

_OPTION = re.compile(r"(?<!\S)--([A-Za-z][\w.-]*)(?:(?:=|\s+)(\"[^\"]*\"|'[^']*'|(?!--)\S+))?")
_NAMESPACE = re.compile(r"\b(?:Namespace|[A-Z]\w*Arguments|[A-Z]\w*Config)\((.*)\)?")
_ASSIGNED = re.compile(r"\b([A-Za-z]\w*)=('[^']*'|\"[^\"]*\"|[^\s,()]+)(?=[,)])")
# Megatron fills the gap with points; others write a colon or an equals sign.
_ALONE = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(?:[:=]|\s\.{3,})\s*(\S+)\s*")


def stated(text: str, names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(what names[option] is, the value, the words) of each option in one line that is among `names`.

    Options are looked up in lower case, with underscores for hyphens. The value of an option without one is ''.
    """
    if "--" in text:
        for match in _OPTION.finditer(text):
            name = _known(match[1])
            if name in names:
                yield names[name], (match[2] or "").strip("'\""), match[0]
    if "=" in text and (namespace := _NAMESPACE.search(text)):
        for pair in _ASSIGNED.finditer(namespace[1]):
            name = _known(pair[1])
            if name in names:
                yield names[name], pair[2].strip("'\""), pair[0]
    elif alone := _ALONE.fullmatch(text):
        name = _known(alone[1])
        if name in names:
            yield names[name], alone[2].strip("'\","), text.strip()


def _known(option: str) -> str:
    return option.lower().replace("-", "_")


_PARAMETERS = re.compile(
    r"\s*trainable params: (?P<trainable>[0-9][0-9,]*) \|\| all params: (?P<all>[0-9][0-9,]*)"
    r"(?: \|\| trainable%: [0-9.e-]+)?\s*"
)


def parameters(text: str) -> list[tuple[str, float, str]]:
    """What peft's print_trainable_parameters says: (field of a claim, count, words) of both counts, or nothing."""
    match = _PARAMETERS.fullmatch(text)
    trainable, whole = (number(match["trainable"]), number(match["all"])) if match else (None, None)
    if trainable is None or whole is None:
        return []
    return [("trainable_parameters", trainable, text), ("parameters", whole, text)]
