"""Parsing of setting values: lists, ranges, sizes after a device, options after a name, strategies joined by plus."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tunemark.errors import BadExperiment, did_you_mean
from tunemark_worker.training_settings import Setting

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_RANGE = re.compile(rf"{_NUMBER}-{_NUMBER}([*+]){_NUMBER}")
_RANGE_LIMIT = 1000
_LARGEST = 2**63 - 1


def parse_values(setting: Setting, raw: object, source: str) -> Any:
    """The value of a setting, or the tuple of values of an axis, from a flag's text or a TOML value."""
    if not setting.is_axis:
        if isinstance(raw, list):
            raise _bad(setting, raw, source, f"{setting.name} takes one value, not a list")
        return parse_value(setting, raw, source)
    items = raw if isinstance(raw, list) else [raw]
    parsed: list[Any] = []
    for item in items:
        words: list[object] = list(_split_list(setting, item, source)) if isinstance(item, str) else [item]
        parsed += [parse_value(setting, word, source) for word in words]
    if not parsed:
        raise _bad(
            setting, raw, source, "the list is empty", next=f"give at least one value, or leave {setting.name} out"
        )
    return tuple(parsed)


def parse_named_options(text: str) -> tuple[str, dict[str, str]]:
    """("name", {"key": "value"}) of "name:key=value:key=value"; ValueError where it is malformed."""
    name, *rest = text.split(":")
    options: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise ValueError(f"{part!r} is not an option KEY=VALUE")
        if key in options:
            raise ValueError(f"the option {key!r} is given twice")
        options[key] = value
    return name, options


def format_named_options(name: str, options: Mapping[str, str]) -> str:
    """The text "name:key=value:key=value", with the options sorted."""
    return ":".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])


def _split_list(setting: Setting, text: str, source: str) -> list[str]:
    words: list[str] = []
    device = ""
    for part in text.split(","):
        word = part.strip()
        if not word:
            raise _bad(setting, text, source, "a value in the list is empty")
        if setting.name != "device":
            words += _expand_range(setting, word, source)
            continue
        name, colon, size = word.partition(":")
        if colon and not size:
            raise _bad(setting, text, source, f"no size follows {word!r}")
        if colon:
            device = name
        # After "cpu:1", a word without a colon is another size of the cpu.
        sizes = _expand_range(setting, size if colon else word, source) if device else []
        words += [f"{device}:{each}" for each in sizes] or [word]
    return words


def _expand_range(setting: Setting, word: str, source: str) -> list[str]:
    is_size = setting.name in ("size", "device")
    match = _RANGE.fullmatch(word) if setting.type in (int, float) or is_size else None
    if match is None:
        return [word]
    try:
        number: Any = float if setting.type is float else int
        first, last, step = number(match[1]), number(match[2]), number(match[4])
    except ValueError:
        raise _bad(setting, word, source, "a range of integers needs integer ends and an integer step") from None
    by_factor = match[3] == "*"
    if last < first or (step <= 1 if by_factor else step <= 0) or (by_factor and first <= 0):
        raise _bad(setting, word, source, "a range is FIRST-LAST*FACTOR or FIRST-LAST+STEP, and must grow")
    numbers: list[Any] = []
    while (value := first * step ** len(numbers) if by_factor else first + step * len(numbers)) <= last * (1 + 1e-9):
        # Rounding errors of float sums and powers are removed.
        numbers.append(value if number is int else float(f"{value:.12g}"))
        if len(numbers) > _RANGE_LIMIT:
            raise _bad(setting, word, source, f"a range has at most {_RANGE_LIMIT} values")
    return [str(each) for each in numbers]


def parse_value(setting: Setting, raw: object, source: str) -> Any:
    """One value of a setting; `BadExperiment` where it is not valid."""
    if setting.unset is not None and raw == setting.unset:
        return None
    if setting.type is bool:
        if not isinstance(raw, bool):
            raise _bad(setting, raw, source, "it must be true or false, without quotes")
        return raw
    if setting.type is str:
        return _text(setting, raw, source)
    expected = "an integer" if setting.type is int else "a number"
    if setting.unset is not None:
        expected += f" or {setting.unset!r}"
    if isinstance(raw, str):
        try:
            raw = setting.type(raw)
        except ValueError:
            raise _bad(setting, raw, source, f"it must be {expected}") from None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or (setting.type is int and isinstance(raw, float)):
        raise _bad(setting, raw, source, f"it must be {expected}")
    # torch and the token file's arrays use 64-bit integers.
    largest = _LARGEST if setting.maximum is None else setting.maximum
    if setting.type is int and raw > largest:
        raise _bad(setting, raw, source, f"it must be at most {largest}")
    number: float
    try:
        number = int(raw) if setting.type is int else float(raw)
    except OverflowError:
        number = math.inf
    if setting.type is float and not math.isfinite(number):
        raise _bad(setting, raw, source, "it must be finite")
    if setting.minimum is not None and number < setting.minimum:
        raise _bad(setting, raw, source, f"it must be at least {setting.minimum:g}")
    if setting.above is not None and number <= setting.above:
        raise _bad(setting, raw, source, f"it must be greater than {setting.above:g}")
    return number


def _text(setting: Setting, raw: object, source: str) -> str:
    if setting.name == "size" and isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str) or not raw.strip():
        raise _bad(setting, raw, source, "it must be text that is not empty")
    if "\0" in raw:
        raise _bad(setting, raw, source, "it contains a zero byte")
    if setting.choices and not any(_matches(raw, choice) for choice in setting.choices):
        raise _bad(setting, raw, source, "it is not one of the choices", next=did_you_mean(raw, setting.choices))
    return raw


def _matches(text: str, choice: str) -> bool:
    prefix = choice.removesuffix("PATH")
    return text == choice or (choice.endswith(":PATH") and text.startswith(prefix) and len(text) > len(prefix))


def _bad(setting: Setting, raw: object, source: str, why: str, next: str = "") -> BadExperiment:
    shown = raw if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else repr(raw)
    return BadExperiment(
        what=f"{setting.name} cannot be {shown!r}" if isinstance(raw, str) else f"{setting.name} cannot be {shown}",
        why=f"{source}: {why}",
        next=next or f"{setting.name}: {setting.help}",
    )
