"""The device mesh of a strategy: strategies joined by plus each span one axis of a single mesh of processes.

The axes are in the order in which they are written; rank numbers vary fastest along the last axis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunemark.errors import BadExperiment
from tunemark.experiment.value_parsing import parse_named_options
from tunemark.plugin.descriptors import Architecture, Strategy, StrategyAxis

# A plus before a digit is part of a number, such as 1e+5.
_JOIN = re.compile(r"\+(?!\d)")


class StrategyTerm(NamedTuple):
    """One strategy of a combination, as written. degree: None where it is derived from the size."""

    name: str
    degree: int | None
    options: dict[str, str]


def parse_strategy_terms(text: str) -> list[StrategyTerm]:
    """The strategies of "name:degree:key=value+name...", degree and options being optional; ValueError where it is
    malformed."""
    terms = []
    for part in _JOIN.split(text):
        name, *rest = part.split(":")
        if not name:
            raise ValueError("a name is missing")
        # The degree comes before any option.
        degree = int(rest.pop(0)) if rest and rest[0].isdecimal() else None
        if degree == 0:
            raise ValueError(f"{part!r}: a degree is at least 1")
        terms.append(StrategyTerm(name, degree, parse_named_options(":".join([name, *rest]))[1]))
    return terms


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshLayout:
    """A strategy on a number of processes. strategy: the single one, or one that stands for the combination.
    axes: empty for one process. name: canonical text of the strategy, the same however the user wrote it."""

    strategy: Strategy
    axes: tuple[StrategyAxis, ...]
    name: str
    data_ranks: int
    micro_batches: int


def combine_strategies(factors: Sequence[StrategyTerm], strategies: Sequence[Strategy], source: str) -> Strategy:
    """One strategy that stands for the combination; the strategy itself where there is only one."""
    names = [strategy.name for strategy in strategies]
    alone = [strategy.name for strategy in strategies if strategy.combined_runtime is None]
    degrees = [f.name for f in factors if f.degree is not None and f.name in alone]
    if len(strategies) == 1 and degrees:
        raise BadExperiment(
            what=f"strategy {names[0]!r} takes no degree",
            why=f"{source}; it does not span a mesh axis",
            next=f"--strategy {names[0]}",
        )
    if len(strategies) == 1:
        return strategies[0]
    if alone:
        raise BadExperiment(
            what=f"strategy {alone[0]!r} cannot be combined with another",
            why=f"{source}: {'+'.join(names)}",
            next="`tunemark list strategies` shows which span a mesh axis",
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadExperiment(
            what=f"the strategy {twice[0]!r} appears twice",
            why=f"{source}: {'+'.join(names)}",
            next="give each mesh axis once, with its whole degree",
        )
    runtimes = {strategy.combined_runtime for strategy in strategies}
    if len(runtimes) > 1:
        raise BadExperiment(
            what=f"the strategies {', '.join(names)} come from plugins that cannot be combined",
            why=f"{source}; combinations of them run in {', '.join(sorted(map(str, runtimes)))}",
            next="combine strategies of one plugin",
        )
    return Strategy(
        name="+".join(names),
        runtime=str(strategies[0].combined_runtime),
        description="; ".join(strategy.description for strategy in strategies),
        distributed=True,
        can_evaluate=all(strategy.can_evaluate for strategy in strategies),
        can_save=all(strategy.can_save for strategy in strategies),
    )


def make_mesh_layout(
    factors: Sequence[StrategyTerm], strategies: Sequence[Strategy], whole: Strategy, processes: int, source: str
) -> MeshLayout:
    """Every mesh axis with its degree; one omitted degree is derived from the number of processes."""
    if not whole.distributed:
        axes: tuple[StrategyAxis, ...] = ()
    else:
        degrees = _degrees(factors, processes, source)
        axes = tuple(
            StrategyAxis(strategy=f.name, degree=degree, options=f.options)
            for f, degree in zip(factors, degrees, strict=True)
        )
    pairs = list(zip(strategies, axes, strict=False))
    return MeshLayout(
        strategy=whole,
        axes=axes,
        name=format_axes(axes or [StrategyAxis(strategy=f.name, degree=1, options=f.options) for f in factors]),
        data_ranks=math.prod(s.data_ranks(axis.degree) for s, axis in pairs) if axes else whole.data_ranks(processes),
        micro_batches=max((s.micro_batches(axis) for s, axis in pairs), default=1),
    )


def format_axes(axes: Sequence[StrategyAxis]) -> str:
    """The strategy of these axes as `--strategy` takes it and runs are named; a single axis is written without its
    degree."""
    words = []
    for axis in axes:
        degree = [str(axis.degree)] if len(axes) > 1 else []
        words.append(":".join([axis.strategy, *degree, *(f"{k}={v}" for k, v in sorted(axis.options.items()))]))
    return "+".join(words)


def check_strategies(
    layout: MeshLayout,
    strategies: Sequence[Strategy],
    architecture: Architecture,
    settings: Mapping[str, Any],
    model: str,
    source: str,
) -> None:
    """Raise `BadExperiment` where one of the strategies does not support this layout, model or setting."""
    for strategy in strategies:
        why = strategy.refusal(layout.axes, architecture, settings)
        if why:
            raise BadExperiment(what=f"strategy {layout.name!r} cannot train {model} like this", why=source, next=why)


def _degrees(factors: Sequence[StrategyTerm], processes: int, source: str) -> list[int]:
    known = math.prod(factor.degree or 1 for factor in factors)
    free = [factor.name for factor in factors if factor.degree is None]
    written = "+".join(f.name if f.degree is None else f"{f.name}:{f.degree}" for f in factors)
    if len(free) > 1:
        raise BadExperiment(
            what=f"the degrees of {' and '.join(free)} are missing",
            why=f"{source}: {written}",
            next=f"at most one degree can be derived from the size: give {free[0]}:N",
        )
    if processes % known or (not free and processes != known):
        raise BadExperiment(
            what=f"strategy {written!r} does not fit {processes} process{'' if processes == 1 else 'es'}",
            why=f"{source}: its degrees multiply to {known}",
            next=f"a size of {known}{' or a multiple' if free else ''}, or degrees whose product is {processes}",
        )
    return [factor.degree or processes // known for factor in factors]
