"""What a million tokens cost, by a file of prices that the user gives. No price is known otherwise.

TOML: `currency = "USD"`, then `[per_hour]` with a line for each device or chip, such as `"MI250" = 2.40`.
CSV: the columns `name`, `per_hour` and, where it is said, `currency`. A name is a device with its size
(`moai:4xLarge`), a device, or a chip, whose price is taken times the number of chips.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tunemark.errors import BadData
from tunemark.report.labels import device_of
from tunemark.results import Estimate, Result

_NEXT = 'write lines such as `"MI250" = 2.40` under [per_hour] in TOML, or a CSV with the columns name and per_hour'


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Money for an hour, by the lower-case name of a device, of a device and size, or of a chip."""

    per_hour: Mapping[str, float]
    currency: str
    source: str


def read_prices(path: Path) -> Prices:
    """A price file, TOML or CSV by its suffix; `BadData` says what of it is no price."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise BadData(what=f"cannot read the prices {path}", why=str(error), next="give a file by --prices") from error
    found, currency = _csv(path, text) if path.suffix.lower() == ".csv" else _toml(path, text)
    prices = {}
    for name, value in found.items():
        price = _number(value)
        if price is None:
            raise BadData(what=f"{path}: {value!r} is no price for an hour of {name!r}", why="", next=_NEXT)
        prices[name.strip().lower()] = price
    if not prices:
        raise BadData(what=f"{path} holds no price", why="there is no name with a price", next=_NEXT)
    return Prices(per_hour=prices, currency=currency, source=path.name)


def price_of(result: Result, prices: Prices) -> tuple[float, str] | None:
    """(money for an hour of the whole job, how that came about); None where the file has no price for it."""
    for name in (device_of(result), result.device):
        if name.lower() in prices.per_hour:
            price = prices.per_hour[name.lower()]
            return price, f"{price:g} {prices.currency}/h ({name})"
    chip = prices.per_hour.get(result.chip.lower())
    if chip is None or result.chips is None:
        return None
    return chip * result.chips, f"{result.chips} x {chip:g} {prices.currency}/h ({result.chip})"


def cost(result: Result, prices: Prices) -> Estimate | None:
    """Money per million content tokens, its interval that of the rate; None without a price or a rate, and of a
    simulator, whose rate says nothing of what an accelerator does in an hour."""
    priced, rate = price_of(result, prices), result.tokens_per_s
    if priced is None or rate is None or rate.value <= 0 or result.simulated:
        return None

    def money(tokens_per_s: float | None) -> float | None:
        return None if not tokens_per_s else priced[0] / 3600 / tokens_per_s * 1e6

    value = money(rate.value)
    assert value is not None
    return Estimate(value=value, low=money(rate.high), high=money(rate.low), n=rate.n, method=rate.method)


def _csv(path: Path, text: str) -> tuple[dict[str, Any], str]:
    rows = csv.DictReader(io.StringIO(text))
    columns = {name.strip().lower(): name for name in rows.fieldnames or ()}
    if not {"name", "per_hour"} <= set(columns):
        raise BadData(what=f"{path} has no columns name and per_hour", why=f"it has {list(columns)}", next=_NEXT)
    found: dict[str, Any] = {}
    currencies: dict[str, None] = {}
    for row in rows:
        found[row[columns["name"]] or ""] = row[columns["per_hour"]]
        if "currency" in columns and row[columns["currency"]]:
            currencies[row[columns["currency"]].strip()] = None
    if len(currencies) > 1:
        raise BadData(what=f"{path} has prices in {', '.join(currencies)}", why="they cannot be compared", next=_NEXT)
    return found, next(iter(currencies), "")


def _toml(path: Path, text: str) -> tuple[dict[str, Any], str]:
    try:
        raw = msgspec.toml.decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadData(what=f"{path} is no TOML", why=str(error), next=_NEXT) from error
    table = raw.get("per_hour")
    if not isinstance(table, dict):
        raise BadData(what=f"{path} has no table [per_hour]", why=f"it has {list(raw)}", next=_NEXT)
    return table, str(raw.get("currency", ""))


def _number(value: Any) -> float | None:
    try:
        price = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        return None
    return price if price >= 0 and math.isfinite(price) else None
