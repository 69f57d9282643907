"""The points of a scaling: the global batch that strong and weak scaling ask of every size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunemark.errors import BadExperiment
from tunemark.experiment.experiment import Point
from tunemark.experiment.plan import Plan
from tunemark.experiment.resolve import each_size, resolve
from tunemark.plugin.catalog import Catalog

Mode = Literal["strong", "weak"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """A point with its size named, and the plan that it has with the least batch."""

    point: Point
    plan: Plan

    @property
    def place(self) -> str:
        return f"{self.plan.spec.strategy} on {self.plan.device.name}:{self.plan.accelerator.name}"


def scale_points(found: Sequence[Point], catalog: Catalog, mode: Mode) -> tuple[list[Point], list[str]]:
    """The points with their global batches, and what was chosen or noticed, in words.

    strong: the given global batch at every size or, where none is given, the least that every size and strategy of the
    experiment can take with that micro-batch. weak: the given global batch is that of the smallest size, and grows with
    the data ranks; where none is given, the batch of a data rank is the least that every size and strategy can take.
    Raises `BadExperiment` for a group of one size, and for
    a batch that some size cannot take.
    """
    groups: dict[tuple[object, ...], list[_Size]] = {}
    for point in found:
        for sized in each_size(point, catalog):
            plan = resolve(_with(sized, None), catalog)
            groups.setdefault(_key(sized, plan), []).append(_Size(point=sized, plan=plan))
    for sizes in groups.values():
        if len({s.plan.accelerator.name for s in sizes}) < 2:
            only = sizes[0]
            raise BadExperiment(
                what=f"scaling needs two sizes or more, and {only.place} is one",
                why=only.point.place("size" if "size" in only.point.sources else "device"),
                next=f"name several: --device {only.plan.device.name}:1,2 (or :all); `tunemark run` measures one",
            )
    notes: list[str] = []
    batches: dict[tuple[object, ...], Sequence[int]] = {}
    for key, sizes in groups.items():
        if sizes[0].point["global_batch"] is None:
            # Over all strategies, so that their tables are of one problem.
            micro = sizes[0].plan.spec.micro_batch
            every = [s for each in groups.values() for s in each if s.point["global_batch"] is None]
            alike = [s for s in every if s.plan.spec.micro_batch == micro]
            batches[key] = (_least_kept if mode == "strong" else _least_grown)(sizes, alike, notes)
        else:
            batches[key] = _kept(sizes) if mode == "strong" else _grown(sizes, notes)
        if mode == "weak" and len({s.plan.data_ranks for s in sizes}) == 1:
            name, ranks = sizes[0].plan.spec.strategy, _counted(sizes[0].plan.data_ranks, "data rank")
            notes.append(f"{name} has {ranks} at every size, so that weak scaling is strong scaling too")
    left = {key: list(zip(sizes, batches[key], strict=True)) for key, sizes in groups.items()}
    points = [_with(size.point, batch) for pairs in left.values() for size, batch in pairs]
    return points, list(dict.fromkeys(notes))


def _with(point: Point, global_batch: int | None) -> Point:
    return replace(point, values={**point.values, "global_batch": global_batch})


def _key(point: Point, plan: Plan) -> tuple[object, ...]:
    values = {**point.values, "device": plan.device.name, "size": None}
    return tuple(sorted((name, repr(value)) for name, value in values.items()))


def _unit(sizes: Sequence[_Size]) -> int:
    """The least batch that is whole micro-batches for the data ranks of every size."""
    return math.lcm(*(s.plan.spec.micro_batch * s.plan.data_ranks for s in sizes))


def _least_kept(sizes: Sequence[_Size], alike: Sequence[_Size], notes: list[str]) -> list[int]:
    unit = _unit(alike)
    # A pipeline asks for more than one micro-batch.
    batch = -(-max(s.plan.spec.global_batch for s in alike) // unit) * unit
    notes.append(
        f"strong scaling keeps a global batch of {batch}: the least that every size can take with micro-batches of "
        f"{sizes[0].plan.spec.micro_batch}; --global-batch sets another"
    )
    return [batch] * len(sizes)


def _kept(sizes: Sequence[_Size]) -> list[int]:
    whole: int = sizes[0].point["global_batch"]
    # A search has layouts for any batch.
    set_out = [s for s in sizes if not s.plan.strategy.is_search]
    wrong = next((s for s in set_out if whole % (s.plan.spec.micro_batch * s.plan.data_ranks)), None)
    if wrong is None:
        return [whole] * len(sizes)
    micro, every = wrong.plan.spec.micro_batch, math.lcm(*(s.plan.data_ranks for s in sizes))
    smaller = [m for m in range(micro, 0, -1) if whole % (m * every) == 0]
    raise BadExperiment(
        what=f"a global batch of {whole} cannot be kept at every size",
        why=f"{wrong.place} takes multiples of {micro} x {wrong.plan.data_ranks} (micro-batch x data ranks); "
        f"{wrong.point.place('global_batch')}, {wrong.point.place('micro_batch')}",
        next=f"--global-batch {_near(whole, _unit(sizes))}" + (f", or --micro-batch {smaller[0]}" if smaller else ""),
    )


def _least_grown(sizes: Sequence[_Size], alike: Sequence[_Size], notes: list[str]) -> list[int]:
    each = max(s.plan.spec.global_batch // s.plan.data_ranks for s in alike)
    notes.append(
        f"weak scaling keeps a batch of {each} for {_each_rank(sizes)}: the least that every size can take with "
        f"micro-batches of {sizes[0].plan.spec.micro_batch}; --global-batch sets that of the smallest size"
    )
    return [each * s.plan.data_ranks for s in sizes]


def _grown(sizes: Sequence[_Size], notes: list[str]) -> list[int]:
    smallest = _smallest(sizes)
    whole: int = smallest.point["global_batch"]
    micro, ranks = smallest.plan.spec.micro_batch, smallest.plan.data_ranks
    if smallest.plan.strategy.is_search:
        micro = 1
    if whole % (micro * ranks):
        raise BadExperiment(
            what=f"a global batch of {whole} cannot be that of the smallest size",
            why=f"{smallest.place} takes multiples of {micro} x {ranks} (micro-batch x data ranks), and weak scaling "
            f"grows from it; {smallest.point.place('global_batch')}, {smallest.point.place('micro_batch')}",
            next=f"--global-batch {_near(whole, micro * ranks)}",
        )
    notes.append(
        f"weak scaling keeps a batch of {whole // ranks} for {_each_rank(sizes)}: that of {smallest.place}, which has "
        f"{whole} on {_counted(ranks, 'data rank')}"
    )
    return [whole // ranks * s.plan.data_ranks for s in sizes]


def _each_rank(sizes: Sequence[_Size]) -> str:
    return "each rank" if sizes[0].plan.strategy.is_search else "each data rank"


def _near(whole: int, unit: int) -> str:
    """The multiples of the unit on both sides."""
    return " or ".join(map(str, sorted({max(1, whole // unit) * unit, -(-whole // unit) * unit})))


def _counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _smallest(sizes: Sequence[_Size]) -> _Size:
    """By what is known of every size: chips, memories, or bytes; else the first, as the device orders them."""
    for name in ("chips", "parts", "memory_bytes"):
        amounts = [getattr(s.plan.accelerator, name) for s in sizes]
        if all(amounts):
            return sizes[amounts.index(min(amounts))]
    return sizes[0]
