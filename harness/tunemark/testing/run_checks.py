"""Checks by short real runs: planned, launched and judged as by `tunemark run`, in a temporary store."""

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
from tunemark.experiment import Plan, make_experiment, make_grid_points, make_plans
from tunemark.number_format import percent_text
from tunemark.plugin import Catalog, Device, Model, Strategy
from tunemark.results import Result, Store
from tunemark.runner.observer import RunObserver
from tunemark.runner.preparation import PreparedRun, prepare_runs
from tunemark.runner.session import Session
from tunemark.runner.sweep import run_sweep
from tunemark.runner.verification import verify
from tunemark.testing.bigram_model import BUSY_NAME as BUSY_BIGRAMS
from tunemark.testing.check import Check, fail_check, judge_check, skip_check
from tunemark.testing.model_checks import check_orphans
from tunemark_worker import linux_proc
from tunemark_worker.contract import MAX_LATE, PROBE_VARIABLE

# Quick on one core, yet enough to fill a window on a device that works asynchronously.
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
    "no_measure_peak": True,
}
# Runs in which `synchronize` must return early before the check fails: on a busy machine one run may look like that
# though the device waits; a device that does not wait is caught each time.
_EARLY_RETURNS = 2
# Without a record for this long a run is ended; processes of a killed run may take this long to end.
TIMEOUT_S = 120.0
_EXIT_S = 2.0
# The run is killed after this many window edges, in its timed part.
_KILL_AFTER_EDGES = 3
# Severities of findings that a correct device or model has in runs so short, or beside other programs.
_TOLERATED = ("suspect", "unknown", "note")


class RunChecks:
    """Checks that need runs, in a store below `folder`; names are looked up in the catalog. python: the interpreter
    that trains, None for the running one."""

    def __init__(self, catalog: Catalog, folder: Path, python: str | None = None) -> None:
        self._catalog, self._folder, self._python = catalog, folder, python

    def honesty(self, device: Device) -> Check:
        """Check that the device has finished when `synchronize` returns, and that nothing makes a run invalid."""
        subject = f"device {device.name}"
        early: list[str] = []
        for _ in range(_EARLY_RETURNS):
            probes: list[Mapping[str, Any]] = []

            def on_record(ready: PreparedRun, record: Mapping[str, Any], probes: list[Any] = probes) -> None:
                probes += [record] if record["kind"] == "probe" else []

            try:
                plan = _with_variable(self._plan(BUSY_BIGRAMS, device.name, "none"), PROBE_VARIABLE, "1")
                result = self._run(plan, on_record)
            except TunemarkError as error:
                return skip_check("honesty", subject, error.one_line())
            bad = [f for f in result.findings if f.severity == "invalid"]
            if result.status != "ok":
                return fail_check("honesty", subject, f"{result.status}: {result.each_attempt[-1].evidence}")
            early = [f.message for f in bad if f.rule == "sync-does-not-wait"]
            early += [words for probe in probes if (words := _describe_late(probe))]
            if not early:
                break
        problems = [f"synchronize does not wait: {early[0]}"] if early else [f"{f.rule}: {f.message}" for f in bad]
        good = f"{result.steps_measured} steps: no work was left after each wait"
        queued = [probe["work_s"] for probe in probes if probe["is_queued"]]
        good += "".join(f", nor after {seconds:.2g} s of queued work" for seconds in queued)
        return judge_check("honesty", subject, problems, good)

    def run(self, model: Model) -> Check:
        """Check that a run of the model has status ok and is not invalid."""
        subject = f"model {model.name}"
        try:
            result = self._run(self._plan(model.name, "cpu", "none", size="1"))
        except TunemarkError as error:
            return fail_check("run", subject, error.one_line())
        if result.status != "ok":
            return fail_check("run", subject, f"{result.status}: {result.each_attempt[-1].evidence}")
        bad = [f"{f.rule}: {f.message}" for f in result.findings if f.severity not in _TOLERATED]
        return judge_check("run", subject, bad, f"{result.steps_measured} steps on cpu:1, status ok, nothing invalid")

    def kill(self, model: str, device: str, size: str | None, subject: str) -> Check:
        """Check that no process is left of a run that was killed in its timed part."""
        if not linux_proc.is_supported():
            return skip_check("kill", subject, "this host has no /proc to look for processes in")
        try:
            plan = self._plan(model, device, "none", size=size, steps=1_000_000)
            mark = uuid.uuid4().hex
            plan = _with_variable(plan, linux_proc.MARK_VARIABLE, mark)
            edges, killed = [0], [False]
            pids: list[int] = []

            def on_record(ready: PreparedRun, record: Mapping[str, Any]) -> None:
                if record["kind"] == "start":
                    pids.append(int(record["pid"]))
                edges[0] += record["kind"] == "edge"
                if edges[0] >= _KILL_AFTER_EDGES and not killed[0]:
                    killed[0] = True
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

            result = self._run(plan, on_record)
        except TunemarkError as error:
            return skip_check("kill", subject, error.one_line())
        if not killed[0]:
            return fail_check(
                "kill", subject, f"it ended before it could be killed: {result.each_attempt[-1].evidence}"
            )
        left = end_marked_processes(mark)
        if result.each_attempt[-1].status not in ("killed", "error"):
            return fail_check("kill", subject, f"after SIGKILL its status is {result.each_attempt[-1].status}")
        return check_orphans("kill", subject, left, "a run that was killed")

    def parity(self, strategy: Strategy, model: str) -> Check:
        """Check that the strategy trains as a single process does."""
        subject = f"strategy {strategy.name}" + (f" on {strategy.devices[0]}" if strategy.devices else "")
        name = strategy.devices[0] if strategy.devices else "cpu"
        try:
            device = self._catalog.device(name)
            if not device.accelerators():
                return skip_check("parity", subject, f"there is no {name} on this machine")
            size = ("2" if strategy.distributed else "1") if name == "cpu" else None
            plan = self._plan(model, name, strategy.name, size=size, oversubscribe=True)
            if strategy.name == "none":
                return skip_check("parity", subject, "it is the reference of the others")
            return self._verify(plan, subject, model)
        except TunemarkError as error:
            return skip_check("parity", subject, error.one_line())

    def trainer_parity(self, trainer: str, model: str) -> Check:
        """Check that a trainer trains as tunemark's own loop does."""
        subject = f"trainer {trainer}"
        try:
            plan = self._plan(model, "cpu", "none", size="1", trainer=trainer)
            return self._verify(plan, subject, model)
        except TunemarkError as error:
            return skip_check("parity", subject, error.one_line())

    def _verify(self, plan: Plan, subject: str, model: str) -> Check:
        """Hold a few steps of a plan to those of its reference."""
        session = Session(store=Store(self._folder / "parity"), catalog=self._catalog, timeout_s=TIMEOUT_S)
        (ready,) = prepare_runs([plan], session)
        found = verify(ready, session)
        if found is None:
            return skip_check("parity", subject, "it is the reference of the others")
        return _judge_parity(found, subject, model)

    def _plan(self, model: str, device: str, strategy: str, **more: Any) -> Plan:
        chosen = {**_SETTINGS, "model": model, "device": device, "strategy": strategy, "python": self._python, **more}
        values = {name: value for name, value in chosen.items() if value is not None}
        (plan,) = make_plans(make_grid_points(make_experiment(values, None)), self._catalog)
        return plan

    def _run(self, plan: Plan, on_record: Callable[[PreparedRun, Mapping[str, Any]], None] | None = None) -> Result:
        observer = RunObserver(record=on_record) if on_record else RunObserver()
        store = Store(self._folder / "runs")
        session = Session(store=store, catalog=self._catalog, timeout_s=TIMEOUT_S, observer=observer)
        (result,) = run_sweep(prepare_runs([plan], session), session)
        return result


def _judge_parity(found: Mapping[str, Any], subject: str, model: str) -> Check:
    """found: a verification, as it is stored."""
    if found["failure"]:
        return fail_check("parity", subject, found["failure"])
    compared = [found[name] for name in ("loss", "gradient_norm") if found[name] is not None]
    worst = max(compared)
    what = "loss and gradient norm differ" if len(compared) > 1 else "the loss"
    words = f"over {found['steps']} steps of {model} {what}"
    words += " from those of " if len(compared) > 1 else " differs from that of "
    words += f"{found['reference']} by up to {worst:.2g} (limit {found['tolerance']:g})"
    return judge_check("parity", subject, [] if worst <= found["tolerance"] else [words], words)


def end_marked_processes(mark: str) -> list[tuple[int, str]]:
    """Kill the processes of a marked job that are still there after a moment; returns (pid, command) of each."""
    deadline_s = time.monotonic() + _EXIT_S
    left = linux_proc.find_marked_processes(mark)
    while left and time.monotonic() < deadline_s:
        time.sleep(0.02)
        left = linux_proc.find_marked_processes(mark)
    for pid, _ in left:
        linux_proc.send_signal(pid, signal.SIGKILL)
    return left


def _describe_late(probe: Mapping[str, Any]) -> str:
    """What a probe of the queue says against `synchronize`; empty if nothing."""
    if probe["late_s"] <= MAX_LATE * probe["work_s"]:
        return ""
    words = f"of {probe['work_s']:.2g} s of queued work {probe['late_s']:.2g} s were left after it, "
    return words + f"{percent_text(probe['late_s'] / probe['work_s'])} (limit {percent_text(MAX_LATE)})"


def _with_variable(plan: Plan, name: str, value: str) -> Plan:
    environment = {**plan.launch.environment, name: value}
    return replace(plan, launch=replace(plan.launch, environment=environment))
