"""Two GPUs as their vendors' libraries would show them: the state behind the fakes of NVML and of AMD SMI.

GPU 0 draws 300 W, GPU 1 200 W, counted from the clock alone. $FAKE_GPUS, JSON, says what is wrong with them:
throttle: ids that are too hot. capped: ids at their power limit. foreign: id to the pid of somebody else's process.
lost: id to the number of samples after which it answers no more. quiet: ids that count no energy. package: true where
both are dies of one package.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

WATTS = (300.0, 200.0)
MEMORY = 64 << 30


def wrong(what: str, default: Any = ()) -> Any:
    return json.loads(os.environ.get("FAKE_GPUS", "{}")).get(what, default)


def joules(gpu: int) -> float:
    return WATTS[gpu] * time.monotonic()


def processes(gpu: int, own: int | None = None) -> list[tuple[int, str]]:
    """This process, standing for the job that it has started, and whoever else is there. own: its number."""
    others = wrong("foreign", {})
    return [(own or os.getpid(), "python"), *([(others[str(gpu)], "other_job")] if str(gpu) in others else [])]


class Samples:
    """Counts how often a GPU was asked, to be lost in time."""

    def __init__(self) -> None:
        self._asked = [0, 0]

    def is_lost(self, gpu: int) -> bool:
        self._asked[gpu] += 1
        return self._asked[gpu] > wrong("lost", {}).get(str(gpu), 1 << 60)
