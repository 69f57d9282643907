"""How far a prediction may be off: bounds by what was known and by what had to be assumed.

A bound is two standard deviations of the logarithm of measured over predicted, each side its own: unknown software and
networks are slower than predicted more often than faster. Variances add up: of the software, of the chip's class, of
each assumption, and of what is hard to predict in a step (mixtures, exposed communication). The values are rounded from
the errors of rows whose source was left out of the fit; `benchmarks/published_rows.py` prints how many of such rows
lie within these bounds, which is meant to be 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import NamedTuple

from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumption_list import AssumptionKind
from tunemark.predict.layout import Framework, RankLayout, Workload
from tunemark.predict.prediction import Spread, StepSeconds


class _Sides(NamedTuple):
    """Standard deviations of a logarithm below and above the prediction."""

    low: float
    high: float


# Step time, by software.
_SOFTWARE: Mapping[Framework, _Sides] = {
    "megatron": _Sides(0.08, 0.105),
    "torch": _Sides(0.07, 0.125),
    "hf": _Sides(0.16, 0.17),
    "deepspeed": _Sides(0.13, 0.22),
    "xla": _Sides(0.10, 0.10),
    "native": _Sides(0.07, 0.08),
}
# Step time, by assumption.
_ASSUMED: Mapping[AssumptionKind, _Sides] = {
    "chip": _Sides(0.10, 0.10),
    "network": _Sides(0.0, 0.03),
    "framework": _Sides(0.10, 0.16),
    "year": _Sides(0.0, 0.05),
    "batch": _Sides(0.10, 0.10),
    "recomputation": _Sides(0.03, 0.03),
    "schedule": _Sides(0.03, 0.03),
    "dimensions": _Sides(0.15, 0.12),
    "adapters": _Sides(0.05, 0.05),
    "experts": _Sides(0.05, 0.08),
    "states": _Sides(0.08, 0.08),
    "lengths": _Sides(0.10, 0.10),
}
# Step time, by class of chips: those with few rows, and all without.
_CLASSES: Mapping[str, float] = {
    "ampere": 0.0, "hopper": 0.0, "blackwell": 0.02, "geforce": 0.10, "tpu": 0.08, "ada": 0.10, "cdna3": 0.10,
}  # fmt: skip
_UNSEEN_CLASS = 0.22
_MIXTURE = 0.15
# Of the share of the step that is exposed communication, on a stated network and on an assumed one.
_COMMUNICATION, _UNKNOWN_COMMUNICATION = 0.15, 0.30
_OWN_MEMORY = 0.05
# Memory, by software; published figures often are what an allocator reserves, or all that is in use.
_MEMORY: Mapping[Framework, _Sides] = {
    "megatron": _Sides(0.05, 0.06),
    "torch": _Sides(0.13, 0.10),
    "hf": _Sides(0.12, 0.12),
    "deepspeed": _Sides(0.15, 0.10),
    "xla": _Sides(0.20, 0.20),
    "native": _Sides(0.15, 0.15),
}
# Where the sharding is assumed, so are the bits of gradients and what graphs of kernels keep for themselves.
_ASSUMED_MEMORY: Mapping[AssumptionKind, _Sides] = {
    "framework": _Sides(0.10, 0.10),
    "sharding": _Sides(0.20, 0.17),
    "recomputation": _Sides(0.25, 0.25),
    "batch": _Sides(0.15, 0.15),
    "dimensions": _Sides(0.10, 0.10),
    "adapters": _Sides(0.06, 0.06),
    "states": _Sides(0.20, 0.20),
    "experts": _Sides(0.10, 0.10),
    "lengths": _Sides(0.25, 0.20),
}


def find_spread(
    work: Workload,
    layout: RankLayout,
    device: DeviceFacts,
    seconds: StepSeconds,
    assumed: Set[AssumptionKind] = frozenset(),
) -> Spread:
    """The spread of a prediction. assumed: what it took for granted, besides the network and the chip, which `device`
    says. For a device that was measured, or whose figures its plugin assumes, the spread that it states."""
    if not device.is_published:
        time_residual = device.residual if device.learned_residual is None else device.learned_residual
        return Spread(
            low=time_residual,
            high=time_residual,
            memory_low=device.memory_residual,
            memory_high=device.memory_residual,
        )
    kinds = set(assumed)
    if layout.ranks > device.node and not device.is_network_known:
        kinds.add("network")
    if device.is_chip_assumed:
        kinds.add("chip")
    framework = work.stack.framework
    share = seconds.communication / seconds.total
    exposed = (_UNKNOWN_COMMUNICATION if "network" in kinds else _COMMUNICATION) * share
    mixture = _MIXTURE if work.architecture.num_local_experts else 0.0
    common = (_CLASSES.get(device.kind, _UNSEEN_CLASS), exposed, mixture)
    time = _add_up([_SOFTWARE[framework], *(_ASSUMED[kind] for kind in kinds & _ASSUMED.keys())], common)
    if device.learned_residual is not None:
        time = _Sides(device.learned_residual, device.learned_residual)
    if work.stack.own:
        # Tensors are counted (`worker_step_costs`); what an allocator adds is not.
        return Spread(low=time.low, high=time.high, memory_low=_OWN_MEMORY, memory_high=_OWN_MEMORY)
    if layout.ranks == 1:
        kinds.discard("sharding")
    known = [_MEMORY[framework], *(_ASSUMED_MEMORY[kind] for kind in kinds & _ASSUMED_MEMORY.keys())]
    memory = _add_up(known, (mixture,))
    return Spread(low=time.low, high=time.high, memory_low=memory.low, memory_high=memory.high)


def _add_up(each: list[_Sides], common: tuple[float, ...]) -> _Sides:
    """Independent errors: variances add."""
    both = sum(value**2 for value in common)
    low, high = (math.sqrt(both + sum(side[i] ** 2 for side in each)) for i in (0, 1))
    return _Sides(low, high)
