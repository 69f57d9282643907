"""Random token ids in documents with lognormal lengths: to measure speed without data; there is nothing to learn."""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.plugin.descriptors import Example, ExamplePiece


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticDocuments:
    """Lengths are round(exp(N(mu, sigma))), clipped to 1..longest, with mu = ln(mean) - sigma^2 / 2 so that `mean` is
    the mean before clipping. Ids are uniform over 0..vocab_size - 1.

    The defaults resemble this plugin's instruction sets: mean 200, median 160, 2 % above 650.
    """

    vocab_size: int
    documents: int = 2000
    mean: float = 200.0
    sigma: float = 0.7
    longest: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        _check_range(self.documents >= 1, "documents", self.documents, "at least 1")
        _check_range(1 <= self.mean < math.inf, "mean", self.mean, "a number of at least 1")
        _check_range(0 <= self.sigma <= 5, "sigma", self.sigma, "a number from 0 to 5")
        _check_range(self.longest >= 1, "longest", self.longest, "at least 1")

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def facts(self) -> Mapping[str, Any]:
        return {**asdict(self), "lengths": "lognormal, cut at longest", "ids": "uniform"}

    def examples(self) -> Iterator[Example]:
        # Only random(): Python guarantees its sequence for a seed, but not that of other methods.
        draw = random.Random(self.seed).random
        mu = math.log(self.mean) - self.sigma**2 / 2
        normal = statistics.NormalDist()
        for _ in range(self.documents):
            # 1 - random() is in (0, 1], and min() keeps it below 1: the inverse is infinite at 0 and 1.
            deviate = normal.inv_cdf(min(1.0 - draw(), 1.0 - 2.0**-53))
            length = max(1, min(self.longest, round(math.exp(mu + self.sigma * deviate))))
            ids = tuple([int(draw() * self.vocab_size) for _ in range(length)])
            yield Example(pieces=(ExamplePiece(role="response", ids=ids),))


def load(options: Mapping[str, str], vocab_size: int) -> SyntheticDocuments:
    known = {"documents": int, "mean": float, "sigma": float, "longest": int, "seed": int}
    values: dict[str, Any] = {}
    for name, text in options.items():
        kind = known[name]
        try:
            values[name] = kind(text)
        except ValueError as error:
            number = "a whole number" if kind is int else "a number"
            raise BadExperiment(
                what=f"synthetic: {name}={text} is not {number}", next=f"write, for example, synthetic:{name}=100"
            ) from error
    return SyntheticDocuments(vocab_size=vocab_size, **values)


def _check_range(holds: bool, name: str, value: float, must: str) -> None:
    if not holds:
        raise BadExperiment(what=f"synthetic: {name}={value} is out of range", why=f"it must be {must}")
