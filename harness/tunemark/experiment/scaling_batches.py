"""Strong and weak scaling: the global batch of every size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunemark.errors import BadExperiment
from tunemark.experiment.device_choice import expand_sizes
from tunemark.experiment.experiment import GridPoint
from tunemark.experiment.plan import Plan
from tunemark.experiment.planning import make_plan
from tunemark.plugin.catalog import Catalog

ScalingMode = Literal["strong", "weak"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """A point with an explicit size, and its plan with the smallest global batch."""

    point: GridPoint
    plan: Plan

    @property
    def label(self) -> str:
        return f"{self.plan.spec.strategy} on {self.plan.device.name}:{self.plan.accelerator.name}"


def assign_scaling_batches(
    points: Sequence[GridPoint], catalog: Catalog, mode: ScalingMode
) -> tuple[list[GridPoint], list[str]]:
    """The points with their global batches, and notes for the user on how these were chosen.

    strong: the given global batch at every size or, without one, the smallest that every size and strategy of the
    experiment supports with that micro-batch. weak: the given global batch is that of the smallest size and grows with
    the data ranks; without one, the batch per data rank is the smallest that every size and strategy supports.
    Raises `BadExperiment` for a group of one size, and for a batch that some size does not support.
    """
    groups: dict[tuple[object, ...], list[_Size]] = {}
    for point in points:
        for sized in expand_sizes(point, catalog):
            plan = make_plan(_set_batch(sized, None), catalog)
            groups.setdefault(_group_key(sized, plan), []).append(_Size(point=sized, plan=plan))
    for sizes in groups.values():
        if len({s.plan.accelerator.name for s in sizes}) < 2:
            only = sizes[0]
            raise BadExperiment(
                what=f"scaling needs two sizes or more, but {only.label} is the only one",
                why=only.point.place("size" if "size" in only.point.sources else "device"),
                next=f"name several: --device {only.plan.device.name}:1,2 (or :all); `tunemark run` measures one",
            )
    notes: list[str] = []
    batches: dict[tuple[object, ...], Sequence[int]] = {}
    for key, sizes in groups.items():
        if sizes[0].point["global_batch"] is None:
            # Over all strategies, so that their tables compare the same problem.
            micro = sizes[0].plan.spec.micro_batch
            every = [s for each in groups.values() for s in each if s.point["global_batch"] is None]
            same_micro = [s for s in every if s.plan.spec.micro_batch == micro]
            batches[key] = (_default_strong if mode == "strong" else _default_weak)(sizes, same_micro, notes)
        else:
            batches[key] = _given_strong(sizes) if mode == "strong" else _given_weak(sizes, notes)
        if mode == "weak" and len({s.plan.data_ranks for s in sizes}) == 1:
            name, ranks = sizes[0].plan.spec.strategy, _plural(sizes[0].plan.data_ranks, "data rank")
            notes.append(f"{name} has {ranks} at every size, so weak scaling equals strong scaling")
    pairs = [pair for key, sizes in groups.items() for pair in zip(sizes, batches[key], strict=True)]
    return [_set_batch(size.point, batch) for size, batch in pairs], list(dict.fromkeys(notes))


def _set_batch(point: GridPoint, global_batch: int | None) -> GridPoint:
    return replace(point, values={**point.values, "global_batch": global_batch})


def _group_key(point: GridPoint, plan: Plan) -> tuple[object, ...]:
    values = {**point.values, "device": plan.device.name, "size": None}
    return tuple(sorted((name, repr(value)) for name, value in values.items()))


def _batch_unit(sizes: Sequence[_Size]) -> int:
    """The smallest batch that is whole micro-batches on the data ranks of every size."""
    return math.lcm(*(s.plan.spec.micro_batch * s.plan.data_ranks for s in sizes))


def _default_strong(sizes: Sequence[_Size], same_micro: Sequence[_Size], notes: list[str]) -> list[int]:
    unit = _batch_unit(same_micro)
    # A pipeline needs more than one micro-batch.
    batch = -(-max(s.plan.spec.global_batch for s in same_micro) // unit) * unit
    notes.append(
        f"strong scaling keeps a global batch of {batch}: the smallest that every size supports with micro-batches of "
        f"{sizes[0].plan.spec.micro_batch}; --global-batch sets another"
    )
    return [batch] * len(sizes)


def _given_strong(sizes: Sequence[_Size]) -> list[int]:
    batch: int = sizes[0].point["global_batch"]
    # A search has layouts for any batch.
    fixed = [s for s in sizes if not s.plan.strategy.is_search]
    wrong = next((s for s in fixed if batch % (s.plan.spec.micro_batch * s.plan.data_ranks)), None)
    if wrong is None:
        return [batch] * len(sizes)
    micro, ranks = wrong.plan.spec.micro_batch, math.lcm(*(s.plan.data_ranks for s in sizes))
    smaller = [m for m in range(micro, 0, -1) if batch % (m * ranks) == 0]
    unit = _batch_unit(sizes)
    raise BadExperiment(
        what=f"a global batch of {batch} cannot be kept at every size",
        why=f"{wrong.label} needs multiples of {micro} x {wrong.plan.data_ranks} (micro-batch x data ranks); "
        f"{wrong.point.place('global_batch')}, {wrong.point.place('micro_batch')}",
        next=f"--global-batch {_multiples_near(batch, unit)}" + (f", or --micro-batch {smaller[0]}" if smaller else ""),
    )


def _default_weak(sizes: Sequence[_Size], same_micro: Sequence[_Size], notes: list[str]) -> list[int]:
    per_rank = max(s.plan.spec.global_batch // s.plan.data_ranks for s in same_micro)
    notes.append(
        f"weak scaling keeps a batch of {per_rank} per {_rank_word(sizes)}: the smallest that every size supports with "
        f"micro-batches of {sizes[0].plan.spec.micro_batch}; --global-batch sets that of the smallest size"
    )
    return [per_rank * s.plan.data_ranks for s in sizes]


def _given_weak(sizes: Sequence[_Size], notes: list[str]) -> list[int]:
    smallest = _smallest(sizes)
    batch: int = smallest.point["global_batch"]
    micro, ranks = smallest.plan.spec.micro_batch, smallest.plan.data_ranks
    if smallest.plan.strategy.is_search:
        micro = 1
    if batch % (micro * ranks):
        raise BadExperiment(
            what=f"a global batch of {batch} does not fit the smallest size",
            why=f"{smallest.label} needs multiples of {micro} x {ranks} (micro-batch x data ranks), and weak scaling "
            f"grows from it; {smallest.point.place('global_batch')}, {smallest.point.place('micro_batch')}",
            next=f"--global-batch {_multiples_near(batch, micro * ranks)}",
        )
    notes.append(
        f"weak scaling keeps a batch of {batch // ranks} per {_rank_word(sizes)}: that of {smallest.label}, which has "
        f"{batch} on {_plural(ranks, 'data rank')}"
    )
    return [batch // ranks * s.plan.data_ranks for s in sizes]


def _rank_word(sizes: Sequence[_Size]) -> str:
    return "rank" if sizes[0].plan.strategy.is_search else "data rank"


def _multiples_near(batch: int, unit: int) -> str:
    """The multiples of the unit next to the batch, on both sides."""
    return " or ".join(map(str, sorted({max(1, batch // unit) * unit, -(-batch // unit) * unit})))


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _smallest(sizes: Sequence[_Size]) -> _Size:
    """By what is known of every size: chips, memories or bytes; otherwise the first, in the device's order."""
    for name in ("chips", "parts", "memory_bytes"):
        amounts = [getattr(s.plan.accelerator, name) for s in sizes]
        if all(amounts):
            return sizes[amounts.index(min(amounts))]
    return sizes[0]
