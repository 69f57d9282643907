"""The state of the simulator: one JSON file, which tools and programs change concurrently under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from tunemark_moai.flavor_table import DEFAULT_FLAVORS, FLAVOR_DEVICES, MENU_FLAVORS
from tunemark_moai.simulator import SIMULATOR_VARIABLE as SIMULATOR_VARIABLE

STATE_FILE = "state.json"
DEVICE_BYTES = 68702699520
# A server has four MI250, which are eight devices.
_DEVICES_PER_SERVER = 8


class PlatformVersion(NamedTuple):
    """The appearance of one release. column: name of the flavor column. stamped: messages in a program's output begin
    with the time. numbered: they include the version and the job's number. has_low_precision: configurations say
    whether low-precision parameters are distributed. by_variable: `ap-smi`, and the flavor in the environment."""

    name: str
    column: str
    has_date: bool
    stamped: bool
    numbered: bool
    has_low_precision: bool
    by_variable: bool


VERSIONS = {
    "23.9.0": PlatformVersion("KT AI Accelerator", "Model", True, True, False, False, False),
    "24.2.0": PlatformVersion("MoAI Accelerator", "Flavor", False, True, False, False, False),
    "24.3.0": PlatformVersion("MoAI Accelerator", "Model", False, True, False, True, False),
    "24.5.0": PlatformVersion("MoAI Accelerator", "Model", True, False, True, True, False),
    "25.1.202": PlatformVersion("MoAI Accelerator", "Flavor", False, False, True, True, False),
    "25.3.208": PlatformVersion("MoAI Accelerator", "FLAVOR", False, False, True, True, True),
    "25.5.3005": PlatformVersion("MoAI Accelerator", "FLAVOR", False, False, True, True, True),
}

# key: (default, meaning). A value has the type of its default; a tuple lists the choices, the default first.
BEHAVIOUR: Dict[str, Tuple[Any, str]] = {
    "latency_s": (0.0, "seconds that each call of a tool takes"),
    "exit_code": (0, "exit code of every tool"),
    "busy": (0, "1: a foreign process, 10000, holds the accelerator"),
    "queue_s": (0.0, "seconds that a program waits in the cluster's queue"),
    "prepare_s": (0.0, "seconds between the end of waiting and the accelerator being ready"),
    "compile_s": (0.0, "seconds that the search for a parallel configuration takes"),
    "compile_ms": (1234, "time to compile all candidates that the program prints"),
    "cost_ms": (321, "time to compute their cost that it prints"),
    "device_memory_bytes": (DEVICE_BYTES, "limit of one device of 64 GB"),
    "oom": (("auto", "always", "never"), "whether a program runs out of memory; auto: by its parameter count"),
    "lost_at_step": (0, "the step in which the connection is lost; 0: never"),
    "switch": (
        ("ok", "hang", "unknown_menu", "wrong_flavor", "die", "silent"),
        "how moreh-switch-model behaves",
    ),
    "smi": (("ok", "hang", "die", "garbage"), "how moreh-smi and ap-smi behave"),
    "invalid_input": (("repeat", "message", "exit"), "reaction to an invalid selection"),
    "eof": (("exit", "hang"), "reaction to the end of the input"),
    "unmarked": (0, "1: moreh-smi marks no default accelerator"),
    "idle_ap": (("header", "empty", "row"), "what ap-smi shows when idle"),
}


def default_behaviour(key: str) -> Any:
    default = BEHAVIOUR[key][0]
    return default[0] if isinstance(default, tuple) else default


def parse_behaviour(key: str, text: str) -> Any:
    """Parse the value of a behaviour; ValueError lists the valid ones."""
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


def make_state(version: str, flavor: str, devices: int) -> Dict[str, Any]:
    """The initial state: no jobs, and the first accelerator is the default."""
    return {
        "version": version,
        "behaviour": {},
        "devices": [{"id": i, "flavor": flavor} for i in range(devices)],
        "default": 0,
        "jobs": [],
        "next_job": 977790,
    }


def flavor_hardware(flavor: str) -> Tuple[int, int]:
    """(devices of 64 GB, servers) of a flavor."""
    devices = FLAVOR_DEVICES[flavor]
    return devices, -(-devices // _DEVICES_PER_SERVER)


def list_flavors(version: str) -> List[str]:
    return list(DEFAULT_FLAVORS if VERSIONS[version].by_variable else MENU_FLAVORS)


def find_state_folder() -> str:
    """The folder of the state; SystemExit where no simulator runs."""
    found = os.environ.get(SIMULATOR_VARIABLE)
    if not found or not os.path.isfile(os.path.join(found, STATE_FILE)):
        raise SystemExit('no simulator runs: eval "$(tunemark-moai-sim up)"')
    return found


def read_state() -> Dict[str, Any]:
    """The current state, without the jobs of processes that have ended."""
    with edit_state() as state:
        return state


@contextlib.contextmanager
def edit_state() -> Iterator[Dict[str, Any]]:
    """The state under its lock; written back on exit."""
    path = os.path.join(find_state_folder(), STATE_FILE)
    with open(path + ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            state = json.load(file)
        state["jobs"] = [job for job in state["jobs"] if _is_alive(job["pid"])]
        yield state
        write_state(path, state)


def write_state(path: str, state: Dict[str, Any]) -> None:
    part = path + ".part"
    with open(part, "w") as file:
        json.dump(state, file, indent=1)
    os.replace(part, path)


def get_behaviour(state: Dict[str, Any], key: str) -> Any:
    return state["behaviour"].get(key, default_behaviour(key))


def find_holding_processes(state: Dict[str, Any], device: int) -> List[Dict[str, Any]]:
    """The processes on an accelerator, the foreign one first."""
    foreign = {"device": 0, "job_id": 970001, "pid": 10000, "command": "python train.py", "memory_mib": 53000}
    found = [foreign] if get_behaviour(state, "busy") else []
    return [job for job in found + state["jobs"] if job["device"] == device]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
