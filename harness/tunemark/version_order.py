"""Which version of a package is older."""

from __future__ import annotations

import re


def is_older(version: str, minimum: str) -> bool:
    """Whether a version is older than another, by their leading numbers: 2.13.0+cpu is 2.13.0."""
    return version_numbers(version) < version_numbers(minimum)


def version_numbers(version: str) -> list[int]:
    """The leading numbers of a version, without zeros at the end: [2, 13] for 2.13.0+cpu."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
