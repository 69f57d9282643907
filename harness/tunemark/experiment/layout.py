"""How a strategy lays a job's processes out: one axis for each strategy of a product, all on one mesh.

The mesh's axes stand in the order in which they are written; ranks count along the last one fastest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemark.errors import BadExperiment
from tunemark.experiment.values import Factor
from tunemark.plugin.descriptors import Architecture, Axis, Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What was chosen. strategy: the one, or what stands for the product. axes: none for what is one process.
    name: how a run calls it, the same however it was written."""

    strategy: Strategy
    axes: tuple[Axis, ...]
    name: str
    data_ranks: int
    micro_batches: int


def product(factors: Sequence[Factor], strategies: Sequence[Strategy], place: str) -> Strategy:
    """The strategy that stands for all of them together; itself where there is one."""
    names = [strategy.name for strategy in strategies]
    alone = [strategy.name for strategy in strategies if strategy.product is None]
    degrees = [f.name for f, s in zip(factors, strategies, strict=True) if f.degree is not None and s.product is None]
    if len(strategies) == 1 and degrees:
        raise BadExperiment(
            what=f"strategy {names[0]!r} takes no degree",
            why=f"{place}; it has no axis of a mesh",
            next=f"--strategy {names[0]}",
        )
    if len(strategies) == 1:
        return strategies[0]
    if alone:
        raise BadExperiment(
            what=f"strategy {alone[0]!r} stands alone and cannot be joined to another",
            why=f"{place}: {'+'.join(names)}",
            next="`tunemark list strategies` shows which have an axis of a mesh",
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadExperiment(
            what=f"the strategy {twice[0]!r} is there twice",
            why=f"{place}: {'+'.join(names)}",
            next="give each axis of the mesh once, with its whole degree",
        )
    runtimes = {strategy.product for strategy in strategies}
    if len(runtimes) > 1:
        raise BadExperiment(
            what=f"the strategies {', '.join(names)} come from plugins that know nothing of each other",
            why=f"{place}; their products are carried out by {', '.join(sorted(map(str, runtimes)))}",
            next="join strategies of one plugin",
        )
    needs: dict[str, str] = {}
    for strategy in strategies:
        for module, version in strategy.needs.items():
            needs[module] = max(needs.get(module, version), version, key=_numbers)
    return Strategy(
        name="+".join(names),
        runtime=str(strategies[0].product),
        description="; ".join(strategy.description for strategy in strategies),
        distributed=True,
        needs=needs,
        can_evaluate=all(strategy.can_evaluate for strategy in strategies),
        can_save=all(strategy.can_save for strategy in strategies),
    )


def lay_out(
    factors: Sequence[Factor], strategies: Sequence[Strategy], whole: Strategy, processes: int, place: str
) -> Layout:
    """Every axis with its degree, the one that was left out derived from the number of processes."""
    if not whole.distributed:
        axes: tuple[Axis, ...] = ()
    else:
        degrees = _degrees(factors, processes, place)
        axes = tuple(
            Axis(strategy=f.name, degree=degree, options=f.options) for f, degree in zip(factors, degrees, strict=True)
        )
    words = []
    for factor, axis in zip(factors, axes or [None] * len(factors), strict=True):
        degree = [str(axis.degree)] if axis and len(axes) > 1 else []
        words.append(":".join([factor.name, *degree, *(f"{k}={v}" for k, v in sorted(factor.options.items()))]))
    pairs = list(zip(strategies, axes, strict=False))
    return Layout(
        strategy=whole,
        axes=axes,
        name="+".join(words),
        data_ranks=math.prod(s.data_ranks(axis.degree) for s, axis in pairs) if axes else whole.data_ranks(processes),
        micro_batches=max((s.micro_batches(axis) for s, axis in pairs), default=1),
    )


def check(
    layout: Layout,
    strategies: Sequence[Strategy],
    architecture: Architecture,
    settings: Mapping[str, Any],
    model: str,
    place: str,
) -> None:
    """Raise `BadExperiment` where one of the strategies cannot do this."""
    for strategy in strategies:
        why = strategy.refusal(layout.axes, architecture, settings)
        if why:
            raise BadExperiment(what=f"strategy {layout.name!r} cannot train {model} so", why=place, next=why)


def _degrees(factors: Sequence[Factor], processes: int, place: str) -> list[int]:
    known = math.prod(factor.degree or 1 for factor in factors)
    free = [factor.name for factor in factors if factor.degree is None]
    written = "+".join(f.name if f.degree is None else f"{f.name}:{f.degree}" for f in factors)
    if len(free) > 1:
        raise BadExperiment(
            what=f"the degrees of {' and '.join(free)} are both left out",
            why=f"{place}: {written}",
            next=f"leave at most one out, for it to be derived from the size: {free[0]}:N",
        )
    if processes % known or (not free and processes != known):
        raise BadExperiment(
            what=f"strategy {written!r} does not fit {processes} processes",
            why=f"{place}: its degrees multiply to {known}",
            next=f"a size of {known}{' or a multiple' if free else ''}, or degrees whose product is {processes}",
        )
    return [factor.degree or processes // known for factor in factors]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
