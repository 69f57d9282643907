"""The process that measures an attempt, by which a reader of the store sees whether it is still under way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import psutil

from tunemark_worker.linux_proc import read_text

# Seconds by which two readings of a process's start may differ: they are rounded to ticks of the clock.
_SAME_START_S = 2.0


def describe_own_process() -> dict[str, Any]:
    """This process, for `attempt.json`: its id, when it started, and the machine's boot, since ids are used again."""
    return {"pid": os.getpid(), "boot": read_boot_id(), "created_s": psutil.Process().create_time()}


def is_under_way(facts: Mapping[str, Any]) -> bool:
    """Whether an attempt has no end yet because its command still measures it on this machine."""
    process = facts.get("process")
    if "status" in facts or not isinstance(process, Mapping) or process.get("boot") != read_boot_id():
        return False
    try:
        created_s = float(psutil.Process(int(process["pid"])).create_time())
        return abs(created_s - float(process["created_s"])) < _SAME_START_S
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def read_boot_id() -> str:
    """The id of the machine's boot; empty on a system that has none."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()
