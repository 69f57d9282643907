"""What a prediction assumed because nobody said it: sentences for people, and kinds that widen its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# chip: its figures; network: node size or links between nodes; framework: which software trains; year: of the software;
# sharding, batch, recomputation, schedule: of the layout; dimensions, adapters: of the model; experts: how a mixture is
# divided; states: bits of weights and of the optimizer; lengths: of rows that are padded.
AssumptionKind = Literal[
    "chip", "network", "framework", "year", "sharding", "batch", "recomputation", "schedule", "dimensions", "adapters",
    "experts", "states", "lengths",
]  # fmt: skip


@dataclass(slots=True)
class AssumptionList:
    """Assumptions in the order in which they were made. sentences: for people. kinds: what they are about."""

    sentences: list[str] = field(default_factory=list)
    kinds: set[AssumptionKind] = field(default_factory=set)

    def add(self, kind: AssumptionKind, sentence: str) -> None:
        self.kinds.add(kind)
        self.sentences.append(sentence)
