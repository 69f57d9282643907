"""The points of a scaling: the global batch that strong and weak scaling ask of every size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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

    strong: the given global batch at every size or, where none is given, the least that every size of the experiment
    with that micro-batch can take. weak: that of the smallest size, given or one micro-batch for each of its data
    ranks, times the data ranks over those of the smallest size. Raises `BadExperiment` for a group of one size, and for
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
        if mode == "strong":
            given = sizes[0].point["global_batch"]
            batch = _least_of_all(sizes[0], groups.values(), notes) if given is None else _kept(sizes)
            batches[key] = [batch] * len(sizes)
        else:
            batches[key] = _grown(sizes, notes)
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


def _least_of_all(one: _Size, groups: Any, notes: list[str]) -> int:
    # Over all strategies, so that their tables are of one problem.
    alike = [s for sizes in groups for s in sizes if s.plan.spec.micro_batch == one.plan.spec.micro_batch]
    batch = _unit([s for s in alike if s.point["global_batch"] is None])
    notes.append(
        f"strong scaling keeps a global batch of {batch}: the least that every size can take with micro-batches of "
        f"{one.plan.spec.micro_batch}; --global-batch sets another"
    )
    return batch


def _kept(sizes: Sequence[_Size]) -> int:
    whole: int = sizes[0].point["global_batch"]
    wrong = next((s for s in sizes if whole % (s.plan.spec.micro_batch * s.plan.data_ranks)), None)
    if wrong is None:
        return whole
    unit, micro, ranks = _unit(sizes), wrong.plan.spec.micro_batch, wrong.plan.data_ranks
    near = sorted({max(1, whole // unit) * unit, -(-whole // unit) * unit})
    every = math.lcm(*(s.plan.data_ranks for s in sizes))
    smaller = [m for m in range(micro, 0, -1) if whole % (m * every) == 0]
    raise BadExperiment(
        what=f"a global batch of {whole} cannot be kept at every size",
        why=f"{wrong.place} takes multiples of {micro} x {ranks} (micro-batch x data ranks); "
        f"{wrong.point.place('global_batch')}, {wrong.point.place('micro_batch')}",
        next=f"--global-batch {' or '.join(map(str, near))}" + (f", or --micro-batch {smaller[0]}" if smaller else ""),
    )


def _grown(sizes: Sequence[_Size], notes: list[str]) -> list[int]:
    smallest = _smallest(sizes)
    micro, ranks = smallest.plan.spec.micro_batch, smallest.plan.data_ranks
    whole: int = smallest.point["global_batch"] or micro * ranks
    if whole % (micro * ranks):
        unit = micro * ranks
        near = sorted({max(1, whole // unit) * unit, -(-whole // unit) * unit})
        raise BadExperiment(
            what=f"a global batch of {whole} cannot be that of the smallest size",
            why=f"{smallest.place} takes multiples of {micro} x {ranks} (micro-batch x data ranks), and weak scaling "
            f"grows from it; {smallest.point.place('global_batch')}, {smallest.point.place('micro_batch')}",
            next=f"--global-batch {' or '.join(map(str, near))}",
        )
    each = whole // ranks
    notes.append(
        f"weak scaling keeps a batch of {each} for each data rank: the global batch is {each} x data ranks, "
        f"{whole} at {smallest.plan.device.name}:{smallest.plan.accelerator.name}"
    )
    if len({s.plan.data_ranks for s in sizes}) == 1:
        words = f"{ranks} data rank{'s' if ranks > 1 else ''} at every size, so that weak scaling is strong scaling too"
        notes.append(f"{smallest.plan.spec.strategy} has {words}")
    return [each * s.plan.data_ranks for s in sizes]


def _smallest(sizes: Sequence[_Size]) -> _Size:
    """By what is known of every size: chips, memories, or bytes; else the first, as the device orders them."""
    for name in ("chips", "parts", "memory_bytes"):
        amounts = [getattr(s.plan.accelerator, name) for s in sizes]
        if all(amounts):
            return sizes[amounts.index(min(amounts))]
    return sizes[0]
