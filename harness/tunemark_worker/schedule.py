"""Learning-rate schedules: the factor of each step."""

from __future__ import annotations

import math
from typing import Callable, Dict, Optional

# From the part of the steps that is done, in [0, 1), to the factor.
SCHEDULES: Dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


def make_schedule(name: str, horizon: Optional[int]) -> Callable[[int], float]:
    """step -> learning-rate factor, which decays over `horizon` steps but is never 0, so that every step learns."""
    if name not in SCHEDULES:
        raise ValueError("the schedule is one of {}, not {!r}".format(", ".join(SCHEDULES), name))
    factor = SCHEDULES[name]
    if horizon is None:
        if name == "constant":
            return factor
        raise ValueError("a {} schedule needs the number of steps or epochs".format(name))
    last = max(horizon - 1, 0)
    return lambda step: factor(min(step, last) / float(last + 1))
