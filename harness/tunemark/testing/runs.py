"""Short, real runs: the same planning, launching and judging as `tunemark run`, in a store that is thrown away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunemark.errors import TunemarkError
from tunemark.experiment import Plan, make_experiment, points, resolve_all
from tunemark.plugin import Catalog, Device, Model, Strategy
from tunemark.results import Result, Store
from tunemark.sweep import Ready, Watch, make_ready, sweep
from tunemark.testing.arithmetic import left_behind
from tunemark.testing.bigrams import NAME as BIGRAMS
from tunemark.testing.check import Check, failed, passed, skipped
from tunemark.verify import verify
from tunemark_worker import leftover

# Sizes that take no time on one core, and yet fill a window on a device that works behind the program's back.
_SETTINGS: Mapping[str, Any] = {
    "dataset": "synthetic:documents=256:mean=40:longest=64",
    "precision": "fp32",
    "sequence": 64,
    "micro_batch": 2,
    "warmup": 2,
    "steps": 16,
    "window": 0.2,
    "target_interval": 0.0,
    "budget": 60.0,
    "no_calibrate": True,
}
# Runs in which a device has to lie to be called a liar: on a busy machine the program itself can be late to read what a
# wait has brought. One that does not wait is late each time.
_LIES = 2
# Seconds without a record after which a run is ended, and seconds that what a killed run has started may take to end.
SILENCE_S = 120.0
_ENDING_S = 2.0
# Edges of windows after which the run is killed: it is in its timed part.
_KILLED_AT = 3
# Findings about an honest device or model that is merely measured for too short a time, or beside other programs.
_DISTURBED = ("suspect", "unknown", "note")


class Runs:
    """What runs are made with. A store, and the catalog that names are looked up in."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self._catalog, self._folder = catalog, folder

    def honesty(self, device: Device) -> Check:
        """Whether the device has finished when it says so, and whether the rest of a run is sound."""
        subject = f"device {device.name}"
        lies: list[str] = []
        for _ in range(_LIES):
            try:
                result = self._run(self._plan(BIGRAMS, device.name, "none"))
            except TunemarkError as error:
                return skipped("honesty", subject, _flat(error))
            bad = [f for f in result.findings if f.severity == "invalid"]
            if result.status != "ok":
                return failed("honesty", subject, f"{result.status}: {result.each_attempt[-1].evidence}")
            lies = [f.message for f in bad if f.rule == "sync-does-not-wait"]
            if not lies:
                break
        if lies:
            return failed("honesty", subject, f"synchronize does not wait: {lies[0]}")
        if bad:
            return failed("honesty", subject, "; ".join(f"{f.rule}: {f.message}" for f in bad))
        return passed("honesty", subject, f"{result.steps_measured} steps: nothing was left to do after each wait")

    def run(self, model: Model) -> Check:
        """Whether a run of the model ends well, with nothing that makes it invalid."""
        subject = f"model {model.name}"
        try:
            result = self._run(self._plan(model.name, "cpu", "none", size="1"))
        except TunemarkError as error:
            return failed("run", subject, _flat(error))
        if result.status != "ok":
            return failed("run", subject, f"{result.status}: {result.each_attempt[-1].evidence}")
        bad = [f"{f.rule}: {f.message}" for f in result.findings if f.severity not in _DISTURBED]
        if bad:
            return failed("run", subject, "; ".join(bad))
        return passed("run", subject, f"{result.steps_measured} steps on cpu:1, status ok, nothing invalid")

    def kill(self, model: str, device: str, size: str | None, subject: str) -> Check:
        """Whether nothing is left of a run that was killed in its timed part."""
        if not leftover.is_known():
            return skipped("kill", subject, "this host has no /proc to look for processes in")
        try:
            plan = self._plan(model, device, "none", size=size, steps=1_000_000)
            mark = uuid.uuid4().hex
            plan = _marked(plan, mark)
            edges, killed = [0], [False]
            pids: list[int] = []

            def on_record(ready: Ready, record: Mapping[str, Any]) -> None:
                if record["kind"] == "start":
                    pids.append(int(record["pid"]))
                edges[0] += record["kind"] == "edge"
                if edges[0] >= _KILLED_AT and not killed[0]:
                    killed[0] = True
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

            result = self._run(plan, on_record)
        except TunemarkError as error:
            return skipped("kill", subject, _flat(error))
        if not killed[0]:
            return failed("kill", subject, f"it ended before it could be killed: {result.each_attempt[-1].evidence}")
        left = end_marked(mark)
        if result.each_attempt[-1].status not in ("killed", "error"):
            return failed("kill", subject, f"after SIGKILL its status is {result.each_attempt[-1].status}")
        return left_behind("kill", subject, left, "a run that was killed")

    def parity(self, strategy: Strategy, model: str) -> Check:
        """Whether the strategy trains as one process does."""
        subject = f"strategy {strategy.name}" + (f" on {strategy.devices[0]}" if strategy.devices else "")
        name = strategy.devices[0] if strategy.devices else "cpu"
        try:
            device = self._catalog.device(name)
            if not device.accelerators():
                return skipped("parity", subject, f"there is no {name} on this machine")
            size = ("2" if strategy.distributed else "1") if name == "cpu" else None
            plan = self._plan(model, name, strategy.name, size=size, oversubscribe=True)
            if strategy.name == "none":
                return skipped("parity", subject, "it is what others are compared with")
            store = Store(self._folder / "parity")
            (ready,) = make_ready([plan], store, Watch())
            found = verify(ready, store, self._catalog, timeout_s=SILENCE_S, watch=Watch())
        except TunemarkError as error:
            return skipped("parity", subject, _flat(error))
        if found is None:
            return skipped("parity", subject, "it is what others are compared with")
        if found["failure"]:
            return failed("parity", subject, found["failure"])
        worst = max(found["loss"], found["gradient_norm"])
        words = f"over {found['steps']} steps of {model} loss and gradient norm differ from those of "
        words += f"{found['reference']} by up to {worst:.2g} (limit {found['tolerance']:g})"
        return passed("parity", subject, words) if worst <= found["tolerance"] else failed("parity", subject, words)

    def _plan(self, model: str, device: str, strategy: str, **more: Any) -> Plan:
        chosen = {**_SETTINGS, "model": model, "device": device, "strategy": strategy, **more}
        values = {name: value for name, value in chosen.items() if value is not None}
        (plan,) = resolve_all(points(make_experiment(values, None)), self._catalog)
        return plan

    def _run(self, plan: Plan, on_record: Callable[[Ready, Mapping[str, Any]], None] | None = None) -> Result:
        store = Store(self._folder / "runs")
        watch = Watch(record=on_record) if on_record else Watch()
        ready = make_ready([plan], store, watch)
        (result,) = sweep(
            ready, store, self._catalog, repeats=1, redo=True, timeout_s=SILENCE_S, calibrate=False, watch=watch
        )
        return result


def end_marked(mark: str) -> list[tuple[int, str]]:
    """What is still there of a marked job after a moment; it is ended here, because nobody else will."""
    until_s = time.monotonic() + _ENDING_S
    left = leftover.processes(mark)
    while left and time.monotonic() < until_s:
        time.sleep(0.02)
        left = leftover.processes(mark)
    for pid, _ in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return left


def _marked(plan: Plan, mark: str) -> Plan:
    environment = {**plan.launch.environment, leftover.VARIABLE: mark}
    return replace(plan, launch=replace(plan.launch, environment=environment))


def _flat(error: TunemarkError) -> str:
    return "; ".join(" ".join(part.split()) for part in (error.what, error.why, error.next) if part)
