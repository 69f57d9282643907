"""The cost of a million tokens at the user's prices; there are no built-in prices."""

from __future__ import annotations

from tunemark.analysis.prices import Prices
from tunemark.results import Estimate, Result


def cost_per_million_tokens(result: Result, prices: Prices) -> Estimate | None:
    """Cost per million content tokens, with the interval of the rate. None without a price or a rate, and on a
    simulated device, whose rate is not an accelerator's."""
    rate = result.tokens_per_s
    if rate is None or rate.value <= 0 or result.simulated:
        return None

    def price(tokens_per_s: float | None) -> float | None:
        return prices.per_million_tokens(result, tokens_per_s) if tokens_per_s else None

    value = price(rate.value)
    if value is None:
        return None
    return Estimate(value=value, low=price(rate.high), high=price(rate.low), n=rate.n, method=rate.method)
