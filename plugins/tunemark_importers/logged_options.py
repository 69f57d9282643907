"""Finds options in a log: in a command line, argparse's Namespace, or one option per line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunemark_importers.numbers import parse_number

_OPTION = re.compile(r"(?<!\S)--([A-Za-z][\w.-]*)(?:(?:=|\s+)(\"[^\"]*\"|'[^']*'|(?!--)\S+))?")
_NAMESPACE = re.compile(r"\b(?:Namespace|[A-Z]\w*Arguments|[A-Z]\w*Config)\((.*)\)?")
_ASSIGNED = re.compile(r"\b([A-Za-z]\w*)=('[^']*'|\"[^\"]*\"|[^\s,()]+)(?=[,)])")
# Megatron fills the gap with dots; others write a colon or an equals sign.
_SINGLE = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(?:[:=]|\s\.{3,})\s*(\S+)\s*")


def find_options(text: str, names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(names[option], value, matched text) of each option in the line that is a key of `names`.

    Options are looked up in lower case, with underscores for hyphens. The value of an option without one is ''.
    """
    if "--" in text:
        for match in _OPTION.finditer(text):
            name = _normalise(match[1])
            if name in names:
                yield names[name], (match[2] or "").strip("'\""), match[0]
    if "=" in text and (namespace := _NAMESPACE.search(text)):
        for pair in _ASSIGNED.finditer(namespace[1]):
            name = _normalise(pair[1])
            if name in names:
                yield names[name], pair[2].strip("'\""), pair[0]
    elif alone := _SINGLE.fullmatch(text):
        name = _normalise(alone[1])
        if name in names:
            yield names[name], alone[2].strip("'\","), text.strip()


def _normalise(option: str) -> str:
    return option.lower().replace("-", "_")


_PARAMETERS = re.compile(
    r"\s*trainable params: (?P<trainable>[0-9][0-9,]*) \|\| all params: (?P<all>[0-9][0-9,]*)"
    r"(?: \|\| trainable%: [0-9.e-]+)?\s*"
)


def find_parameter_counts(text: str) -> list[tuple[str, float, str]]:
    """(field of a claim, count, line) of both counts in a line of peft's print_trainable_parameters, else nothing."""
    match = _PARAMETERS.fullmatch(text)
    trainable, whole = (parse_number(match["trainable"]), parse_number(match["all"])) if match else (None, None)
    if trainable is None or whole is None:
        return []
    return [("trainable_parameters", trainable, text), ("parameters", whole, text)]
