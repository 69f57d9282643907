"""Enumerate the candidate layouts of a search: all that a device's strategies can make of its ranks, with settings.

The strategies are those that describe their layout (`StrategyLayout`), alone and in combinations on one mesh, all with
the same global batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tunemark.experiment.mesh_layout import format_axes
from tunemark.plugin.descriptors import MeshDegree, Strategy, StrategyAxis
from tunemark.predict.layout import RankLayout
from tunemark.predict.plan_conversion import make_layout
from tunemark_worker.training_settings import CHECKPOINTING

_SpannedAxis = tuple[Strategy, StrategyAxis]


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSpace:
    """What is enumerated. ranks: processes of a distributed strategy on this size. strategies: those available.
    micro_batches: None for every divisor. alone: whether one process can use this size."""

    ranks: int
    strategies: tuple[Strategy, ...]
    global_batch: int
    micro_batches: tuple[int, ...] | None = None
    checkpointings: tuple[str, ...] = CHECKPOINTING
    alone: bool = False

    def of_degree(self, degree: MeshDegree) -> list[Strategy]:
        """The strategies whose processes do this with the model and the batch."""
        return [each for each in self.strategies if each.layout is not None and each.layout.degree == degree]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One layout with its settings. strategy: as `--strategy` takes it. axes: of its mesh; empty for one process."""

    strategy: str
    axes: tuple[StrategyAxis, ...]
    layout: RankLayout
    gradient_accumulation: int

    @property
    def micro_batch(self) -> int:
        return self.layout.micro_batch

    @property
    def checkpointing(self) -> str:
        return self.layout.recompute

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.strategy for axis in self.axes) or (self.strategy,)

    @property
    def settings(self) -> dict[str, int | str]:
        """The settings that `Strategy.refusal` reads and that differ between candidates."""
        return {
            "micro_batch": self.micro_batch,
            "checkpointing": self.checkpointing,
            "gradient_accumulation": self.gradient_accumulation,
        }


def enumerate_candidates(space: CandidateSpace) -> Iterator[Candidate]:
    """All candidates, in no particular order, including those that a strategy refuses."""
    if space.alone:
        for strategy in space.of_degree("single"):
            yield from _vary_settings(space, strategy.name, (), 1)
        if space.ranks == 1:
            return
    pipelines = _divisors(space.ranks) if space.of_degree("pipeline") else (1,)
    for pipeline in pipelines:
        rest = space.ranks // pipeline
        for tensor in _divisors(rest) if space.of_degree("tensor") else (1,):
            data = rest // tensor
            if space.global_batch % data:
                continue
            for parts in itertools.product(
                _axes(space, "pipeline", pipeline), _data_axes(space, data), _axes(space, "tensor", tensor)
            ):
                spanned = sorted(itertools.chain(*parts), key=_axis_order)
                if spanned and _can_combine([strategy for strategy, _ in spanned]):
                    yield from _vary_settings(space, format_axes([axis for _, axis in spanned]), spanned, data)


def _vary_settings(space: CandidateSpace, name: str, spanned: Sequence[_SpannedAxis], data: int) -> Iterator[Candidate]:
    """The candidates of one mesh: every micro-batch with every kind of checkpointing. data: number of replicas."""
    each = space.global_batch // data
    axes, strategies = tuple(axis for _, axis in spanned), [strategy for strategy, _ in spanned]
    for micro_batch in _divisors(each) if space.micro_batches is None else space.micro_batches:
        if each % micro_batch:
            continue
        for checkpointing in space.checkpointings:
            yield Candidate(
                strategy=name,
                axes=axes,
                layout=make_layout(axes, strategies, micro_batch=micro_batch, checkpointing=checkpointing),
                gradient_accumulation=each // micro_batch,
            )


def _axes(space: CandidateSpace, kind: MeshDegree, degree: int) -> list[tuple[_SpannedAxis, ...]]:
    """The axes of one kind with each set of options that its strategies have the search try; none of degree 1."""
    if degree == 1:
        return [()]
    return [
        ((strategy, StrategyAxis(strategy=strategy.name, degree=degree, options=options)),)
        for strategy in space.of_degree(kind)
        if strategy.layout is not None
        for options in strategy.layout.search_options
    ]


def _data_axes(space: CandidateSpace, data: int) -> list[tuple[_SpannedAxis, ...]]:
    """How replicas hold parameters, gradients and optimizer states: replicated, sharded, or sharded within groups."""
    found = _axes(space, "data", data)
    if data == 1:
        return found
    found += _axes(space, "shard", data)
    for (copies, shards), degree in itertools.product(
        itertools.product(space.of_degree("data"), space.of_degree("shard")), _divisors(data)[1:-1]
    ):
        found.append(
            (
                (copies, StrategyAxis(strategy=copies.name, degree=data // degree)),
                (shards, StrategyAxis(strategy=shards.name, degree=degree)),
            )
        )
    return found


def _axis_order(spanned: _SpannedAxis) -> int:
    layout = spanned[0].layout
    return 0 if layout is None else layout.order


def _can_combine(strategies: Sequence[Strategy]) -> bool:
    """Whether one runtime spans all these axes."""
    return len(strategies) == 1 or (
        strategies[0].combined_runtime is not None and len({strategy.combined_runtime for strategy in strategies}) == 1
    )


@cache
def _divisors(n: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))
