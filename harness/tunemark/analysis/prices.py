"""Prices of an hour of an accelerator, from a file of the user; there are no built-in prices.

currency = "USD"
[per_hour]         # of a whole size
"cuda:8" = 24.0
[per_chip_hour]    # of one chip of a device, or of a chip by its name
cuda = 3.2
"MI250" = 2.5

Or as CSV, with the columns name, per_hour or per_chip_hour, and currency.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tunemark.errors import BadExperiment, did_you_mean
from tunemark.results.result import Result


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of an hour in one currency; every one above 0."""

    currency: str
    per_hour: Mapping[str, float] = {}
    per_chip_hour: Mapping[str, float] = {}

    def hourly_price(self, result: Result) -> float | None:
        """The hourly price of a run's accelerator."""
        return self.hourly_price_of(result.device, result.size, result.chip, result.chips)

    def hourly_price_of(self, device: str, size: str, chip: str, chips: int | None) -> float | None:
        """The hourly price of an accelerator: of its size, else of its chips by chip name, else by device name; None if
        there is no price, or the number of chips is unknown."""
        whole = self.per_hour.get(f"{device}:{size}")
        if whole is not None:
            return whole
        one = self.per_chip_hour.get(chip, self.per_chip_hour.get(device))
        return one * chips if one is not None and chips else None

    def per_million_tokens(self, result: Result, tokens_per_s: float) -> float | None:
        """The price of a million content tokens at that rate."""
        hour = self.hourly_price(result)
        return None if hour is None else hour / 3600 / tokens_per_s * 1e6


def read_prices(path: str | Path) -> Prices:
    """Read the prices of a TOML file, or of a CSV file by its suffix; `BadExperiment` says what is wrong in it."""
    example = 'a price file has currency = "USD", and [per_hour] "cuda:8" = 24.0 or [per_chip_hour] cuda = 3.2'
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        raw = _parse_csv(text) if Path(path).suffix.lower() == ".csv" else _parse_toml(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadExperiment(what=f"cannot read the prices {str(path)!r}", why=str(why), next=example) from error
    for key in raw:
        if key not in Prices.__struct_fields__:
            next = did_you_mean(key, Prices.__struct_fields__)
            raise BadExperiment(what=f"no key {key!r} in a price file", why=str(path), next=next)
    try:
        prices = msgspec.convert(raw, Prices)
    except msgspec.ValidationError as error:
        raise BadExperiment(what=f"{path} is no price file", why=str(error), next=example) from error
    for name, price in (*prices.per_hour.items(), *prices.per_chip_hour.items()):
        if not (0 < price < math.inf):
            raise BadExperiment(what=f"the price of {name!r} is {price}", why=str(path), next="give a price above 0")
    if not (prices.per_hour or prices.per_chip_hour):
        raise BadExperiment(what=f"{path} has no price", why="neither per_hour nor per_chip_hour", next=example)
    return prices


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # only where a file is given
    else:
        import tomli as tomllib

    return tomllib.loads(text)


def _parse_csv(text: str) -> dict[str, Any]:
    """Parse a CSV file into the TOML structure; ValueError if it is not a price table."""
    rows = csv.DictReader(io.StringIO(text))
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
    kinds = [kind for kind in ("per_hour", "per_chip_hour") if kind in rows.fieldnames]
    if "name" not in rows.fieldnames or not kinds:
        raise ValueError("it needs the columns name, and per_hour or per_chip_hour")
    found: dict[str, Any] = {kind: {} for kind in kinds}
    currencies: dict[str, None] = {}
    for row in rows:
        for kind in kinds:
            if word := (row[kind] or "").strip():
                found[kind][(row["name"] or "").strip()] = float(word)
        if word := (row.get("currency") or "").strip():
            currencies[word] = None
    if len(currencies) != 1:
        raise ValueError(f"it needs one currency for all, it has {', '.join(currencies) or 'none'}")
    return {**found, "currency": next(iter(currencies))}
