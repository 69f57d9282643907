"""What a million tokens cost by the user's prices, with the interval of the rate; no price is known otherwise."""

from __future__ import annotations

from tunemark.analysis.prices import Prices
from tunemark.results import Estimate, Result


def cost(result: Result, prices: Prices) -> Estimate | None:
    """Money per million content tokens; None without a price or a rate, and of a simulator, whose rate says nothing
    of what an accelerator does in an hour."""
    rate = result.tokens_per_s
    if rate is None or rate.value <= 0 or result.simulated:
        return None

    def money(tokens_per_s: float | None) -> float | None:
        return prices.per_million_tokens(result, tokens_per_s) if tokens_per_s else None

    value = money(rate.value)
    if value is None:
        return None
    return Estimate(value=value, low=money(rate.high), high=money(rate.low), n=rate.n, method=rate.method)
