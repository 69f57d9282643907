"""The simulator's `torch.moreh`, and the messages that the platform writes into a program's output."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
import types
from datetime import datetime
from typing import Any, Callable, Dict, List, Optional

from tunemark_moai.flavor_table import DEVICE_MIB
from tunemark_moai.simulator import state as sim

_CHOICES = {
    "pipeline_parallel": (True, False),
    "activation_recomputation": (True, False, "auto"),
    "distribute_parameter": (True, False, "auto"),
    "mixed_precision": (True, False),
}
_BYTES_PER_PARAMETER = 16
_FIXED_BYTES = 512 << 20


def install(torch: Any) -> Any:
    """Install `torch.moreh`; the accelerator computes on the CPU."""
    platform = _ProgramPlatform()
    moreh = types.ModuleType("torch.moreh")
    option = types.ModuleType("torch.moreh.option")
    options = types.ModuleType("torch.moreh.options")
    option.enable_advanced_parallelization = platform.enable  # type: ignore[attr-defined]  # created above
    options.allow_relaxed_fp32 = False  # type: ignore[attr-defined]  # likewise
    version = sim.read_state()["version"]
    vars(moreh).update(option=option, options=options, acquire=platform.acquire)
    vars(moreh).update(simulated=True, simulated_device="cpu", simulated_version=version)
    torch.moreh = moreh
    sys.modules.update({"torch.moreh": moreh, "torch.moreh.option": option, "torch.moreh.options": options})
    if os.environ.get("MOREH_ENABLE_ADVANCED_PARALLELIZATION") == "1":
        platform.enable()

    add = torch.optim.Optimizer.add_param_group

    def add_param_group(optimizer: Any, group: Any) -> None:
        platform.acquire()
        add(optimizer, group)
        if "step" not in vars(optimizer):
            # The optimizer's own `step`, because torch 1.13 has no hook for the steps of every optimizer.
            optimizer.step = _before(optimizer.step, lambda: platform.step(optimizer))

    torch.optim.Optimizer.add_param_group = add_param_group
    return moreh


def _before(function: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    """The function, with `first` called before each call."""

    @functools.wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        first()
        return function(*args, **kwargs)

    return both


class _ProgramPlatform:
    """The platform as one program sees it."""

    def __init__(self) -> None:
        self._arguments: Optional[Dict[str, Any]] = None
        self._device: Optional[int] = None
        self._flavor = ""
        self._steps = 0

    def enable(
        self,
        pipeline_parallel: bool = True,
        num_stages: Any = "auto",
        num_micro_batches: Any = "auto",
        activation_recomputation: Any = "auto",
        distribute_parameter: Any = "auto",
        mixed_precision: bool = True,
    ) -> None:
        """As documented in ap_advanced_setting.md."""
        arguments = {
            "pipeline_parallel": pipeline_parallel,
            "num_stages": num_stages,
            "num_micro_batches": num_micro_batches,
            "activation_recomputation": activation_recomputation,
            "distribute_parameter": distribute_parameter,
            "mixed_precision": mixed_precision,
        }
        for name, choices in _CHOICES.items():
            if not any(arguments[name] is choice for choice in choices):
                raise ValueError("{} cannot be {!r}".format(name, arguments[name]))
        for name in ("num_stages", "num_micro_batches"):
            value = arguments[name]
            if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError("{} cannot be {!r}".format(name, value))
        if not pipeline_parallel and num_stages not in ("auto", 1):
            raise ValueError("{} stages without pipeline_parallel".format(num_stages))
        self._arguments = arguments

    def acquire(self) -> None:
        """Acquire the accelerator, once; wait while it is not available."""
        if self._device is not None:
            return
        state = sim.read_state()
        version = sim.VERSIONS[state["version"]]
        if self._arguments is not None:
            self._log("Got DBs from backend for auto config.")
        device = state["default"]
        if os.environ.get("MOREH_VISIBLE_DEVICE"):
            device = int(os.environ["MOREH_VISIBLE_DEVICE"])
        if version.by_variable:
            device, self._flavor = 0, os.environ.get("ACCELERATOR_PLATFORM_FLAVOR", "")
            if not self._flavor:
                self._log("Failed to initialize the worker daemon for {}.".format(version.name), "error")
                os._exit(1)
        else:
            self._flavor = next(d["flavor"] for d in state["devices"] if d["id"] == device)
        self._log("Requesting resources for {} from the server...".format(version.name))
        self._wait_for_process(device, version.name)
        self._wait_in_queue(version.name)
        with sim.edit_state() as state:
            job = state["next_job"]
            state["next_job"] += 1
            state["jobs"].append(
                {
                    "device": device,
                    "flavor": self._flavor,
                    "job_id": job,
                    "pid": os.getpid(),
                    "command": " ".join(["python", *sys.argv]),
                    "memory_mib": 320,
                }
            )
        self._device = device
        atexit.register(_release)
        nodes = sim.flavor_hardware(self._flavor)[1]
        self._log("Initializing the worker daemon for {}".format(version.name))
        for i in range(1, nodes + 1):
            self._log("[{}/{}] Connecting to resources on the server (192.0.2.{}:24155)...".format(i, nodes, i))
        self._log("Establishing links to the resources...")
        time.sleep(sim.get_behaviour(state, "prepare_s"))
        self._log("{} is ready to use.".format(version.name))
        if version.numbered:
            self._log("Moreh Version: {}".format(state["version"]))
            self._log("Moreh Job ID: {}".format(job))

    def step(self, optimizer: Any) -> None:
        """What the platform does in a step apart from computing."""
        self.acquire()
        self._steps += 1
        state = sim.read_state()
        if self._steps == sim.get_behaviour(state, "lost_at_step"):
            self._log(
                "The connection to the server has been lost. Please contact technical support if the problem persists.",
                "error",
            )
            os._exit(1)
        if self._steps == 1:
            selected = self._search_configuration(state) if self._arguments is not None else None
            parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
            self._allocate_memory(state, parameters, bool(selected and selected["distribute_parameter"]))

    def _wait_for_process(self, device: int, name: str) -> None:
        has_printed = False
        while True:
            found = sim.find_holding_processes(sim.read_state(), device)
            if not found:
                return
            if not has_printed:
                pid, command = found[0]["pid"], found[0]["command"]
                self._log("{} is already in use by another process:".format(name), "warning")
                self._log("  (pid: {}) {}".format(pid, command), "warning")
                self._log(
                    "Two or more processes cannot use {} at the same time. The program will resume automatically "
                    "after the process {} terminates...".format(name, pid),
                    "warning",
                )
                has_printed = True
            time.sleep(0.1)

    def _wait_in_queue(self, name: str) -> None:
        began = time.monotonic()
        has_printed = False
        while time.monotonic() - began < sim.get_behaviour(sim.read_state(), "queue_s"):
            if not has_printed:
                self._log(
                    "Not enough resources are currently available for {}. All resources in the system are being used "
                    "by other users. The program will resume automatically when resources become "
                    "available...".format(name),
                    "warning",
                )
                has_printed = True
            time.sleep(0.05)

    def _search_configuration(self, state: Dict[str, Any]) -> Dict[str, Any]:
        devices, nodes = sim.flavor_hardware(self._flavor)
        chosen = _select_configuration(self._arguments or {}, sim.VERSIONS[state["version"]].has_low_precision, devices)
        candidates = 16 + 6 * nodes
        self._log("The number of candidates is {}.".format(candidates))
        self._log("Parallel Graph Compile start...")
        time.sleep(sim.get_behaviour(state, "compile_s"))
        self._log("Elapsed Time to compile all candidates = {} [ms]".format(sim.get_behaviour(state, "compile_ms")))
        self._log("Parallel Graph Compile finished.")
        self._log("The number of possible candidates is {}.".format(candidates // 4))
        self._log("SelectBestGraphFromCandidates start...")
        self._log(
            "Elapsed Time to compute cost for survived candidates = {} [ms]".format(sim.get_behaviour(state, "cost_ms"))
        )
        self._log("SelectBestGraphFromCandidates finished.")
        self._log("Configuration for parallelism is selected.")
        self._log(chosen["line"])
        self._log("train: true")
        with open("advanced_parallelization_selected_config.dump", "w") as file:
            file.write(chosen["line"] + "\n")
        return chosen

    def _allocate_memory(self, state: Dict[str, Any], parameters: int, distributed: bool) -> None:
        devices = sim.flavor_hardware(self._flavor)[0]
        needed = _BYTES_PER_PARAMETER * parameters // (devices if distributed else 1) + _FIXED_BYTES
        limit, how = sim.get_behaviour(state, "device_memory_bytes"), sim.get_behaviour(state, "oom")
        if how == "always" or (how == "auto" and needed > limit):
            name = sim.VERSIONS[state["version"]].name
            raise RuntimeError(
                "Error Code 4: OUT_OF_MEMORY\n"
                "Moreh solution has detected that the application requires more memory than what is currently "
                "available in at least one physical device of {}.\n"
                ">> Memory requested : {} bytes\n>> Memory available : {} bytes\n"
                "Please reduce the batch size of the application.".format(name, max(needed, limit + 1), limit)
            )
        with sim.edit_state() as now:
            for job in now["jobs"]:
                if job["pid"] == os.getpid():
                    whole = needed * devices if distributed else needed
                    job["memory_mib"] = min(devices * DEVICE_MIB, max(320, whole >> 20))

    def _log(self, words: str, level: str = "info") -> None:
        stamp = ""
        if sim.VERSIONS[sim.read_state()["version"]].stamped:
            stamp = datetime.now().strftime("[%Y-%m-%d %H:%M:%S.%f")[:-3] + "] "
        print("{}[{}] {}".format(stamp, level, words), flush=True)


def _select_configuration(arguments: Dict[str, Any], has_low_precision: bool, devices: int) -> Dict[str, Any]:
    """The selected configuration: pinned arguments unchanged, the others as in the documented runs."""
    stages = arguments["num_stages"]
    if stages == "auto":
        stages = 2 if not has_low_precision and devices > 1 and arguments["pipeline_parallel"] else 1
    if stages > devices:
        raise RuntimeError("{} stages cannot be placed on {} devices".format(stages, devices))
    micro = 16 if arguments["num_micro_batches"] == "auto" else arguments["num_micro_batches"]
    recompute = arguments["activation_recomputation"]
    if has_low_precision:
        recomputation = {"auto": "default(1)", True: "1", False: "0"}[recompute]
    else:
        recomputation = "true" if recompute is True else "false"
    distribute = arguments["distribute_parameter"] is not False
    parts: List[str] = ["No PP"]
    if stages > 1:
        parts = ["num_stages : {}".format(stages), "num_micro_batches : {}".format(micro), "batch_per_device : 1"]
    parts += ["No TP", "recomputation : " + recomputation, "distribute_param : " + str(distribute).lower()]
    if has_low_precision:
        parts.append("distribute_low_prec_param : " + str(distribute).lower())
    return {"line": ", ".join(parts), "distribute_parameter": distribute}


def _release() -> None:
    with sim.edit_state() as state:
        state["jobs"] = [job for job in state["jobs"] if job["pid"] != os.getpid()]
