"""Every layout that a device's strategies can make of its ranks, with the settings that go with each.

The strategies are ours (`none`, `ddp`, `fsdp`, `tp`, `pp`) and their products on one mesh; the global batch is given
and the same in all. What talks most lies innermost: pipeline, copies, shards, tensor ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tunemark.plugin.descriptors import Axis
from tunemark.predict.layout import Layout
from tunemark.predict.planned import layout_of

# Virtual stages of a rank that are tried: each more halves the bubble and doubles what a pipeline sends.
VIRTUAL = (2, 4)
# Zero-bubble schedules are not among them: the cost model knows none.
SCHEDULES = ("1f1b", "gpipe", "interleaved")


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """What is searched. ranks: processes that a distributed strategy has on this size. strategies: names that there
    are. micro_batches, checkpointings: None is any. alone: whether strategy none can use this size."""

    ranks: int
    strategies: frozenset[str]
    global_batch: int
    micro_batches: tuple[int, ...] | None = None
    checkpointings: tuple[str, ...] = ("none", "selective", "full")
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to train. strategy: as a person writes it, and so the same run. axes: of its mesh; none for one
    process."""

    strategy: str
    axes: tuple[Axis, ...]
    layout: Layout
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
        """What the refusals of strategies ask of a run, but for what all have in common."""
        return {
            "micro_batch": self.micro_batch,
            "checkpointing": self.checkpointing,
            "gradient_accumulation": self.gradient_accumulation,
        }


def candidates(space: Space) -> Iterator[Candidate]:
    """All of them, in no order that means anything. Those that a strategy refuses are among them."""
    if space.alone and "none" in space.strategies:
        yield from _filled(space, (), 1)
    if space.ranks == 1 and space.alone:
        return
    pipelines = _divisors(space.ranks) if "pp" in space.strategies else (1,)
    for pipeline in pipelines:
        rest = space.ranks // pipeline
        for tensor in _divisors(rest) if "tp" in space.strategies else (1,):
            data = rest // tensor
            if space.global_batch % data:
                continue
            for stages in _stages(pipeline):
                for states in _states(data, space.strategies):
                    for cut in _cuts(tensor):
                        axes = (*stages, *states, *cut)
                        if axes:
                            yield from _filled(space, axes, data)


def spelled(axes: Sequence[Axis]) -> str:
    """The strategy of these axes as `--strategy` takes it and a run is named: one axis has no degree."""
    if not axes:
        return "none"
    words = []
    for axis in axes:
        degree = [str(axis.degree)] if len(axes) > 1 else []
        words.append(":".join([axis.strategy, *degree, *(f"{k}={v}" for k, v in sorted(axis.options.items()))]))
    return "+".join(words)


def _filled(space: Space, axes: tuple[Axis, ...], data: int) -> Iterator[Candidate]:
    """One layout with every micro-batch and way of checkpointing."""
    each = space.global_batch // data
    name = spelled(axes)
    for micro_batch in _divisors(each) if space.micro_batches is None else space.micro_batches:
        if each % micro_batch:
            continue
        for checkpointing in space.checkpointings:
            yield Candidate(
                strategy=name,
                axes=axes,
                layout=layout_of(axes, micro_batch=micro_batch, checkpointing=checkpointing),
                gradient_accumulation=each // micro_batch,
            )


def _stages(pipeline: int) -> list[tuple[Axis, ...]]:
    if pipeline == 1:
        return [()]
    found: list[tuple[Axis, ...]] = []
    for schedule in SCHEDULES:
        options: dict[str, str] = {} if schedule == "1f1b" else {"schedule": schedule}
        several = [{"virtual": str(v)} if v != 2 else {} for v in VIRTUAL] if schedule == "interleaved" else [{}]
        found += [(Axis(strategy="pp", degree=pipeline, options={**options, **more}),) for more in several]
    return found


def _states(data: int, strategies: frozenset[str]) -> list[tuple[Axis, ...]]:
    """How replicas hold parameters, gradients and optimizer states: whole, in shards, or in shards within groups."""
    if data == 1:
        return [()]
    found: list[tuple[Axis, ...]] = []
    if "ddp" in strategies:
        found.append((Axis(strategy="ddp", degree=data),))
    if "fsdp" in strategies:
        found.append((Axis(strategy="fsdp", degree=data),))
        found.append((Axis(strategy="fsdp", degree=data, options={"reshard": "false"}),))
    if {"ddp", "fsdp"} <= strategies:
        for shard in _divisors(data)[1:-1]:
            found.append((Axis(strategy="ddp", degree=data // shard), Axis(strategy="fsdp", degree=shard)))
    return found


def _cuts(tensor: int) -> list[tuple[Axis, ...]]:
    if tensor == 1:
        return [()]
    options: list[dict[str, str]] = [{}, {"sequence_parallel": "true"}]
    return [(Axis(strategy="tp", degree=tensor, options=each),) for each in options]


@cache
def _divisors(n: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))
