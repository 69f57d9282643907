"""What the simulated platform remembers: one JSON file, changed under a lock by tools and programs side by side."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

VARIABLE = "TUNEMARK_MOAI_SIM"
FILE = "state.json"
DEVICE_MIB = 65520
DEVICE_BYTES = 68702699520

MENU = (
    ("Small.64GB", 1, 1),
    ("Medium.128GB", 2, 1),
    ("Large.256GB", 4, 1),
    ("xLarge.512GB", 8, 1),
    ("1.5xLarge.768GB", 12, 2),
    ("2xLarge.1024GB", 16, 2),
    ("3xLarge.1536GB", 24, 3),
    ("4xLarge.2048GB", 32, 4),
    ("6xLarge.3072GB", 48, 6),
    ("8xLarge.4096GB", 64, 8),
    ("12xLarge.6144GB", 96, 12),
    ("24xLarge.12288GB", 192, 24),
    ("48xLarge.24576GB", 384, 48),
)
DEFAULTS = (("flavor-default-8", 8, 1), ("flavor-default-16", 16, 2), ("flavor-default-32", 32, 4))
_MADE = {name: (devices, nodes) for name, devices, nodes in MENU + DEFAULTS}


class Version(NamedTuple):
    """How one release looks. by_variable: `ap-smi`, the flavor in the environment. column: of flavors. stamped: its
    lines in a program's output begin with the time. numbered: it tells its version and a job's number there.
    has_low_precision: its configurations say whether low-precision parameters are distributed."""

    name: str
    column: str
    has_date: bool
    stamped: bool
    numbered: bool
    has_low_precision: bool
    by_variable: bool


VERSIONS = {
    "23.9.0": Version("KT AI Accelerator", "Model", True, True, False, False, False),
    "24.2.0": Version("MoAI Accelerator", "Flavor", False, True, False, False, False),
    "24.3.0": Version("MoAI Accelerator", "Model", False, True, False, True, False),
    "24.5.0": Version("MoAI Accelerator", "Model", True, False, True, True, False),
    "25.1.202": Version("MoAI Accelerator", "Flavor", False, False, True, True, False),
    "25.3.208": Version("MoAI Accelerator", "FLAVOR", False, False, True, True, True),
    "25.5.3005": Version("MoAI Accelerator", "FLAVOR", False, False, True, True, True),
}

# key: (default, meaning). A default's type is the key's; a tuple is a choice, its first the default.
BEHAVIOUR: Dict[str, Tuple[Any, str]] = {
    "latency_s": (0.0, "seconds that each call of a tool takes"),
    "exit_code": (0, "of every tool"),
    "busy": (0, "1: a process of somebody else, 10000, holds the accelerator"),
    "queue_s": (0.0, "seconds that a program waits in the cluster's queue"),
    "prepare_s": (0.0, "seconds between a program's turn and its accelerator being ready"),
    "compile_s": (0.0, "seconds that the search for a parallel configuration takes"),
    "compile_ms": (1234, "what the program is told of the time to compile all candidates"),
    "cost_ms": (321, "what it is told of the time to compute their cost"),
    "device_memory_bytes": (DEVICE_BYTES, "limit of one device of 64 GB"),
    "oom": (("auto", "always", "never"), "whether a program runs out of memory; auto: by its parameters"),
    "lost_at_step": (0, "the step in which the connection is lost; 0 never"),
    "switch": (
        ("ok", "hang", "unknown_menu", "wrong_flavor", "die", "silent"),
        "how moreh-switch-model behaves",
    ),
    "smi": (("ok", "hang", "die", "garbage"), "how moreh-smi and ap-smi behave"),
    "invalid_input": (("repeat", "message", "exit"), "what follows a selection that is none"),
    "eof": (("exit", "hang"), "what follows the end of the input"),
    "unmarked": (0, "1: moreh-smi marks no default accelerator"),
    "idle_ap": (("header", "empty", "row"), "what ap-smi shows when nothing runs"),
}


def default_of(key: str) -> Any:
    default = BEHAVIOUR[key][0]
    return default[0] if isinstance(default, tuple) else default


def parsed(key: str, text: str) -> Any:
    """A behaviour's value; ValueError says what it may be."""
    if key not in BEHAVIOUR:
        raise ValueError("no behaviour {!r}; there are: {}".format(key, ", ".join(BEHAVIOUR)))
    default = BEHAVIOUR[key][0]
    if isinstance(default, tuple):
        if text not in default:
            raise ValueError("{} is one of: {}".format(key, ", ".join(default)))
        return text
    try:
        value = type(default)(text)
    except ValueError:
        raise ValueError("{} is a number, not {!r}".format(key, text)) from None
    if value < 0:
        raise ValueError("{} cannot be negative".format(key))
    return value


def fresh(version: str, flavor: str, devices: int) -> Dict[str, Any]:
    """A platform on which nothing runs yet; the first of its accelerators is the default."""
    return {
        "version": version,
        "behaviour": {},
        "devices": [{"id": i, "flavor": flavor} for i in range(devices)],
        "default": 0,
        "jobs": [],
        "next_job": 977790,
    }


def made(flavor: str) -> Tuple[int, int]:
    """(devices of 64 GB, servers) of a flavor."""
    return _MADE[flavor]


def flavors(version: str) -> List[str]:
    return [name for name, _, _ in (DEFAULTS if VERSIONS[version].by_variable else MENU)]


def folder() -> str:
    """The state's folder; SystemExit where no simulator is up."""
    found = os.environ.get(VARIABLE)
    if not found or not os.path.isfile(os.path.join(found, FILE)):
        raise SystemExit('no simulator is up: eval "$(tunemark-moai-sim up)"')
    return found


def load() -> Dict[str, Any]:
    """The state as it is now, without the jobs of processes that have ended."""
    with changing() as state:
        return state


@contextlib.contextmanager
def changing() -> Iterator[Dict[str, Any]]:
    """The state, written back on leaving."""
    path = os.path.join(folder(), FILE)
    with open(path + ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            state = json.load(file)
        state["jobs"] = [job for job in state["jobs"] if _lives(job["pid"])]
        yield state
        write(path, state)


def write(path: str, state: Dict[str, Any]) -> None:
    part = path + ".part"
    with open(part, "w") as file:
        json.dump(state, file, indent=1)
    os.replace(part, path)


def behaviour(state: Dict[str, Any], key: str) -> Any:
    return state["behaviour"].get(key, default_of(key))


def holders(state: Dict[str, Any], device: int) -> List[Dict[str, Any]]:
    """The processes on an accelerator, somebody else's first."""
    foreign = {"device": 0, "job_id": 970001, "pid": 10000, "command": "python train.py", "memory_mib": 53000}
    found = [foreign] if behaviour(state, "busy") else []
    return [job for job in found + state["jobs"] if job["device"] == device]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
