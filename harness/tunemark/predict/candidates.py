"""Enumerate the candidate layouts of a search: all that a device's strategies can make of its ranks, with settings.

The strategies are ours (`none`, `ddp`, `fsdp`, `tp`, `pp`) and their products on one mesh, all with the same global
batch. The axis that communicates most is innermost: pipeline, replicas, shards, tensor ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tunemark.plugin.descriptors import StrategyAxis
from tunemark.predict.layout import RankLayout
from tunemark.predict.plan_conversion import make_layout

# Numbers of virtual stages of a rank: doubling it halves the bubble and doubles what the pipeline sends.
VIRTUAL_STAGES = (2, 4)
# Without zero-bubble schedules, which the cost model does not cover.
SCHEDULES = ("1f1b", "gpipe", "interleaved")


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSpace:
    """What is enumerated. ranks: processes of a distributed strategy on this size. strategies: names of those
    available. micro_batches: None for every divisor. alone: whether strategy none (one process) can use this size."""

    ranks: int
    strategies: frozenset[str]
    global_batch: int
    micro_batches: tuple[int, ...] | None = None
    checkpointings: tuple[str, ...] = ("none", "selective", "full")
    alone: bool = False


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
        return tuple(axis.strategy for axis in self.axes) or ("none",)

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
    if space.alone and "none" in space.strategies:
        yield from _vary_settings(space, (), 1)
    if space.ranks == 1 and space.alone:
        return
    pipelines = _divisors(space.ranks) if "pp" in space.strategies else (1,)
    for pipeline in pipelines:
        rest = space.ranks // pipeline
        for tensor in _divisors(rest) if "tp" in space.strategies else (1,):
            data = rest // tensor
            if space.global_batch % data:
                continue
            for stages in _pipeline_axes(pipeline):
                for states in _data_axes(data, space.strategies):
                    for cut in _tensor_axes(tensor):
                        axes = (*stages, *states, *cut)
                        if axes:
                            yield from _vary_settings(space, axes, data)


def format_axes(axes: Sequence[StrategyAxis]) -> str:
    """The strategy of these axes as `--strategy` takes it and runs are named; a single axis is written without its
    degree."""
    if not axes:
        return "none"
    words = []
    for axis in axes:
        degree = [str(axis.degree)] if len(axes) > 1 else []
        words.append(":".join([axis.strategy, *degree, *(f"{k}={v}" for k, v in sorted(axis.options.items()))]))
    return "+".join(words)


def _vary_settings(space: CandidateSpace, axes: tuple[StrategyAxis, ...], data: int) -> Iterator[Candidate]:
    """The candidates of one mesh: every micro-batch with every kind of checkpointing. data: number of replicas."""
    each = space.global_batch // data
    name = format_axes(axes)
    for micro_batch in _divisors(each) if space.micro_batches is None else space.micro_batches:
        if each % micro_batch:
            continue
        for checkpointing in space.checkpointings:
            yield Candidate(
                strategy=name,
                axes=axes,
                layout=make_layout(axes, micro_batch=micro_batch, checkpointing=checkpointing),
                gradient_accumulation=each // micro_batch,
            )


def _pipeline_axes(pipeline: int) -> list[tuple[StrategyAxis, ...]]:
    if pipeline == 1:
        return [()]
    found: list[tuple[StrategyAxis, ...]] = []
    for schedule in SCHEDULES:
        options: dict[str, str] = {} if schedule == "1f1b" else {"schedule": schedule}
        several = [{"virtual": str(v)} if v != 2 else {} for v in VIRTUAL_STAGES] if schedule == "interleaved" else [{}]
        found += [(StrategyAxis(strategy="pp", degree=pipeline, options={**options, **more}),) for more in several]
    return found


def _data_axes(data: int, strategies: frozenset[str]) -> list[tuple[StrategyAxis, ...]]:
    """How replicas hold parameters, gradients and optimizer states: replicated, sharded, or sharded within groups."""
    if data == 1:
        return [()]
    found: list[tuple[StrategyAxis, ...]] = []
    if "ddp" in strategies:
        found.append((StrategyAxis(strategy="ddp", degree=data),))
    if "fsdp" in strategies:
        found.append((StrategyAxis(strategy="fsdp", degree=data),))
        found.append((StrategyAxis(strategy="fsdp", degree=data, options={"reshard": "false"}),))
    if {"ddp", "fsdp"} <= strategies:
        for shard in _divisors(data)[1:-1]:
            found.append(
                (StrategyAxis(strategy="ddp", degree=data // shard), StrategyAxis(strategy="fsdp", degree=shard))
            )
    return found


def _tensor_axes(tensor: int) -> list[tuple[StrategyAxis, ...]]:
    if tensor == 1:
        return [()]
    options: list[dict[str, str]] = [{}, {"sequence_parallel": "true"}]
    return [(StrategyAxis(strategy="tp", degree=tensor, options=each),) for each in options]


@cache
def _divisors(n: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))
