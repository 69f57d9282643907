"""Numbers as Korean, Chinese and Japanese write them, counted in ten thousands: `6만 2천` and `6万2千` are 62000."""

from __future__ import annotations

import re

from tunemark_importers.numbers import multiply_exactly, parse_number

_SCALES = {
    **dict.fromkeys("조兆", 1e12), **dict.fromkeys("억亿億", 1e8), **dict.fromkeys("만万萬", 1e4),
    **dict.fromkeys("천千", 1e3), **dict.fromkeys("백百", 1e2),
}  # fmt: skip
_S = "".join(_SCALES)
_PART = rf"[0-9][0-9,]*(?:\.[0-9]+)? ?[{_S}]"
_NUMBER = re.compile(rf"{_PART}(?:[{_S}])?(?: ?{_PART})*(?: ?(?:[0-9],[0-9]{{3}}|[0-9]{{1,4}})(?![0-9.,{_S}a-zA-Z]))?")


def in_digits(text: str) -> str:
    """The text with such numbers in digits. A number whose parts do not fall in size stays as it is."""
    return _NUMBER.sub(_number, text)


def _number(match: re.Match[str]) -> str:
    total, last = 0.0, float("inf")
    for part in re.finditer(rf"([0-9][0-9,]*(?:\.[0-9]+)?) ?([{_S}]*)", match[0]):
        value = parse_number(part[1])
        scale = 1.0
        for one in part[2]:
            scale *= _SCALES[one]
        if value is None or scale >= last:
            return match[0]
        total, last = total + multiply_exactly(value, scale), scale
    return f"{total:.15g}"
