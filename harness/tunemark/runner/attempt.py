"""One attempt of a run, from pending over running to ended: its folder in the store, its device, its job."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunemark.data import count_epoch_tokens, list_widths, make_row_settings
from tunemark.doctor import Machine, examine_for_run
from tunemark.errors import BadData, BadStore, TunemarkError
from tunemark.experiment import Plan
from tunemark.launch import AttemptEnd, AttemptFollower, read_host_facts
from tunemark.launch.device_monitor import make_device_monitor
from tunemark.physics import SlotFlops, count_slot_flops
from tunemark.plugin import DecodesIds, HasTokenizerFiles, JobSpec, JobWatch, StartedJob, Tokenizer, WatchesJobs
from tunemark.redaction import hide_secrets
from tunemark.results.attempt_process import describe_own_process
from tunemark.runner.device_lock import hold_devices, list_device_names
from tunemark.runner.observer import RunObserver, run_title
from tunemark.runner.preparation import PreparedRun
from tunemark.runner.session import Session
from tunemark_worker.contract import Assignment
from tunemark_worker.precision import PRECISIONS

# Seconds that a run waits for space on a full disk before it fails.
_DISK_WAIT_S = 30.0
# No space left, or quota exceeded; Windows has no quota error.
_DISK_FULL_ERRORS = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_INTERRUPTED = AttemptEnd(status="killed", reason="interrupted", evidence="the harness was interrupted")


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingAttempt:
    """An attempt that is to be made. series: the name of its series. number: of how many. is_saving: it saves the
    trained model."""

    ready: PreparedRun
    series: str
    number: int
    of: int
    is_saving: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedAttempt:
    """An attempt that is over and stored."""

    pending: PendingAttempt
    end: AttemptEnd


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningAttempt:
    """An attempt whose job is started. job_watch: of a device that has jobs wait."""

    entry: _StoredEntry
    started: StartedJob
    follower: AttemptFollower
    job_watch: JobWatch | None = None
    resources: ExitStack = field(default_factory=ExitStack)

    def look(self) -> bool:
        """Read new records; True where the attempt is over or must be ended."""
        return self.follower.look()

    def interrupt(self) -> None:
        """Ask the job to end, without waiting."""
        self.started.interrupt()

    def end(self) -> EndedAttempt:
        """End all processes, restore the device, and store how the attempt ended."""
        end = _INTERRUPTED
        try:
            end = self.follower.close()
            saved = self.entry.assignment.save if self.entry.assignment else None
            if saved and end.status == "ok":
                ready = self.entry.pending.ready
                _save_tokenizer(Path(saved), ready.tokenizer, self.entry.session.observer)
        finally:
            ended = self.entry.close(end, self.resources, self.job_watch, self.started)
        return ended

    def store_launch(self) -> None:
        """Store what the launcher says of the job, by which a later command can find it again."""
        facts = self.started.facts()
        if facts:
            self.entry.facts["launcher"].update(facts)
            self.entry.write()


def start_attempt(pending: PendingAttempt, session: Session, lock: ExitStack) -> RunningAttempt | EndedAttempt:
    """Start an attempt, or follow a job of an earlier process of this command. Where it cannot be started, it has ended
    with the reason, and the sweep goes on. lock: closed once its end is stored."""
    adopted = _adopt(pending, session, lock)
    if adopted is not None:
        return adopted
    entry, resources = _make_entry(pending, session, lock), ExitStack()
    job_watch: JobWatch | None = None
    started: StartedJob | None = None
    unread = entry.count_data()
    try:
        entry.create()
    except BadStore as error:
        end = AttemptEnd(status="error", reason="store", evidence=error.one_line())
        return entry.close(end, resources, job_watch, started)
    try:
        if unread is not None:
            raise unread
        pending.ready.code.verify()
        variables, job_watch = _occupy(entry, resources)
        job = entry.make_job(variables)
        started = session.launching.start(job)
        running = RunningAttempt(
            entry=entry,
            started=started,
            follower=_follow(entry, job, started, job_watch),
            job_watch=job_watch,
            resources=resources,
        )
    except BadStore as error:
        end = AttemptEnd(status="error", reason="code", evidence=error.one_line())
    except BadData as error:
        end = AttemptEnd(status="error", reason="data", evidence=error.one_line())
    except TunemarkError as error:
        end = AttemptEnd(status="error", reason="device", evidence=error.one_line())
    except OSError as error:
        end = AttemptEnd(status="error", reason="launch", evidence=f"it could not be started: {error}")
    except BaseException:
        entry.close(_INTERRUPTED, resources, job_watch, started)
        raise
    else:
        _store_launch_or_end(running)
        return running
    return entry.close(end, resources, job_watch, started)


@dataclass(frozen=True, kw_only=True, slots=True)
class _StoredEntry:
    """An attempt's folder in the store. facts: of attempt.json; they grow until its end. assignment: None if that of an
    adopted job is lost. lock: of the device, for other commands."""

    pending: PendingAttempt
    session: Session
    folder: Path
    facts: dict[str, Any]
    assignment: Assignment | None
    lock: ExitStack

    def count_data(self) -> BadData | None:
        """Note what the token file holds for this run. It was there when the run was prepared; gives why it cannot be
        read any more, which ends this attempt and no other run."""
        ready = self.pending.ready
        try:
            self.facts["epoch"] = count_epoch_tokens(ready.data, make_row_settings(ready.plan.spec))._asdict()
            if ready.plan.spec.batching == "bucket":
                self.facts["flops_by_width"] = _count_flops_by_width(ready)
        except BadData as error:
            return error
        return None

    def create(self) -> None:
        """Write the attempt's first files. Waits for space on a full disk, which is often full for a short time only: a
        sweep that does not wait would fail all its runs meanwhile."""
        assert self.assignment is not None, "this command starts the attempt itself"
        plan, store = self.pending.ready.plan, self.session.store
        until_s = time.monotonic() + _DISK_WAIT_S
        while True:
            try:
                store.new_attempt(plan, self.folder, self.assignment, self.facts)
            except BadStore as error:
                is_full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL_ERRORS
                if not is_full or time.monotonic() >= until_s:
                    raise
                if not self.facts.get("waited_for_room"):
                    self.facts["waited_for_room"] = True
                    words = f"no space left in {store.root}, waiting up to {_DISK_WAIT_S:.0f} s for it"
                    self.session.observer.message(f"{run_title(plan)}: {words}")
                time.sleep(1.0)
            else:
                return

    def write(self) -> None:
        self.session.store.write_attempt(self.pending.ready.plan, self.folder, self.facts, self.assignment)

    def finish(self) -> None:
        self.session.store.finish_attempt(self.pending.ready.plan, self.folder, self.facts, self.assignment)

    def make_job(self, variables: Mapping[str, str]) -> JobSpec:
        """variables: of the environment, those that the device asks for."""
        ready, launch = self.pending.ready, self.pending.ready.plan.launch
        return JobSpec(
            name=f"tunemark-{ready.plan.run_id}-{self.folder.name}",
            python=ready.interpreter.path,
            processes=launch.processes,
            threads=launch.threads,
            environment={**launch.environment, **variables},
            code=ready.code.folder,
            folder=self.folder,
            gpus=int(str(launch.options.get("gpus", 0))),
            max_restarts=self.session.max_restarts,
            nodes=launch.nodes,
        )

    def close(
        self, end: AttemptEnd, resources: ExitStack, job_watch: JobWatch | None, started: StartedJob | None
    ) -> EndedAttempt:
        """Restore the device, and store how the attempt ended."""
        try:
            resources.close()
        except TunemarkError as error:
            self.facts["not_put_back"] = error.one_line()
            self.session.observer.message(str(error))
        if job_watch is not None:
            self.facts["watched"] = dict(job_watch.facts())
            failure = self.facts["watched"].get("failure")
            if failure and end.status in ("error", "oom"):
                # The platform's own message says more than an exit code.
                end = replace(end, evidence=f"{failure}; {end.evidence}")
        if started is not None:
            self.facts["launcher"].update(started.facts())
        end = replace(end, evidence=hide_secrets(end.evidence))
        self.facts.update(status=end.status, reason=end.reason, evidence=end.evidence)
        with self.lock:  # who waits for the device looks first whether this attempt is finished
            self.finish()
        return EndedAttempt(pending=self.pending, end=end)


def _make_entry(pending: PendingAttempt, session: Session, lock: ExitStack) -> _StoredEntry:
    ready, plan = pending.ready, pending.ready.plan
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{pending.number}-{os.getpid()}"
    return _StoredEntry(
        pending=pending,
        session=session,
        folder=session.store.attempt_folder(plan, name),
        facts=_make_facts(pending, session),
        assignment=plan.assignment(
            ready.data.token_file,
            name,
            measure_peak=session.measure_peak and _can_measure_peak(plan),
            sample_ids=ready.sample_ids,
            eos_id=ready.tokenizer.eos_id if ready.tokenizer else None,
            is_saving=pending.is_saving,
        ),
        lock=lock,
    )


def _make_facts(pending: PendingAttempt, session: Session) -> dict[str, Any]:
    ready, plan = pending.ready, pending.ready.plan
    started_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts: dict[str, Any] = {
        "fingerprint": ready.fingerprint,
        "series": pending.series,
        "started_utc": started_utc,
        "order": session.store.make_order(plan.run_id, started_utc),
        "process": describe_own_process(),
        "code_sha256": ready.code.sha256,
        "interpreter": {
            "path": ready.interpreter.path,
            "python": ready.interpreter.python,
            **ready.interpreter.versions,
        },
        "dataset": dict(ready.data.facts),
        "host": dict(read_host_facts()),
        "launcher": {"name": plan.launcher.name, "options": dict(plan.launcher_options)},
    }
    if session.max_restarts:
        facts["launcher"]["max_restarts"] = session.max_restarts
    if not plan.launcher.is_remote:
        # By the clock of the worker's instants; another machine has another clock.
        facts["launched_s"] = time.monotonic()
        launch = plan.launch
        spoilt = examine_for_run(Machine(), processes=launch.processes, threads=launch.threads)
        facts["doctor"] = [{"check": each.check, "evidence": each.evidence} for each in spoilt]
    if ready.verification is not None:
        facts["verification"] = dict(ready.verification)
    if ready.search is not None:
        facts["search"] = asdict(ready.search)
    return facts


def _count_flops_by_width(ready: PreparedRun) -> dict[str, SlotFlops]:
    """The FLOPs of a slot by the width of its row, for every width that a micro-batch of the run can have."""
    spec, a = ready.plan.spec, ready.plan.model.architecture
    settings = (spec.micro_batch, spec.global_batch, spec.checkpointing, ready.plan.method.trained(a))
    widths = list_widths(ready.data, make_row_settings(spec))
    return {str(width): count_slot_flops(a, width, *settings) for width in widths}


def _adopt(pending: PendingAttempt, session: Session, lock: ExitStack) -> RunningAttempt | None:
    """Follow a job that an earlier process of this command started and did not see end; None if there is none."""
    ready = pending.ready
    if not ready.plan.launcher.is_remote:
        return None
    for folder, stored in session.store.unfinished(ready.plan.run_id, ready.fingerprint):
        facts = {**stored, "process": describe_own_process()}
        assignment = None
        with suppress(OSError, ValueError):  # its original one; if lost, no tokenizer is saved
            assignment = Assignment.from_json((folder / "plan.json").read_text())
        entry = _StoredEntry(
            pending=pending, session=session, folder=folder, facts=facts, assignment=assignment, lock=lock
        )
        job = entry.make_job({})
        started = session.launching.adopt(job, facts.get("launcher", {}))
        if started is not None:
            session.observer.message(f"{run_title(ready.plan)}: taking up {folder.name}, which was started before")
            running = RunningAttempt(entry=entry, started=started, follower=_follow(entry, job, started, None))
            _store_launch_or_end(running)
            return running
        words = "its command ended before it did, and its job can no longer be followed"
        entry.facts.update(status="killed", reason="lost", evidence=words)
        entry.finish()
    return None


def lock_devices(plan: Plan, session: Session) -> ExitStack:
    """Lock the plan's devices for other commands of this machine, waiting for them if allowed. Other hosts' devices are
    allocated by their launcher."""
    lock = ExitStack()
    if not plan.launcher.is_remote:
        names = list_device_names(plan.device, plan.accelerator)
        lock.enter_context(hold_devices(names, say=session.observer.message, is_waiting_allowed=not session.no_wait))
    return lock


def _store_launch_or_end(running: RunningAttempt) -> None:
    try:
        running.store_launch()
    except BaseException:
        running.end()
        raise


def _occupy(entry: _StoredEntry, resources: ExitStack) -> tuple[Mapping[str, str], JobWatch | None]:
    """Take the device, and sample it meanwhile: the variables that it asks for, and its watch of the job, if any."""
    session, plan = entry.session, entry.pending.ready.plan
    say = session.observer.message
    variables = resources.enter_context(plan.device.occupy(plan.accelerator, session.store.root.absolute()))
    job_watch = None
    if isinstance(plan.device, WatchesJobs):
        job_watch = resources.enter_context(plan.device.watch(plan.accelerator, entry.folder, say))
    if not plan.launcher.is_remote:
        # Devices of other machines cannot be sampled from here.
        resources.enter_context(
            make_device_monitor(plan.device, plan.accelerator, session.catalog, entry.folder, say=say)
        )
    return variables or {}, job_watch


def _follow(entry: _StoredEntry, job: JobSpec, started: StartedJob, job_watch: JobWatch | None) -> AttemptFollower:
    observers = entry.session.catalog.observers("tunemark_record")
    return AttemptFollower(
        job,
        started,
        timeout_s=entry.session.timeout_s,
        on_record=_make_record_listener(entry, observers),
        is_waiting=job_watch.is_waiting if job_watch else lambda: False,
        every_record=bool(observers),
    )


def _make_record_listener(
    entry: _StoredEntry, observers: list[tuple[str, Callable[..., Any]]]
) -> Callable[[Mapping[str, Any]], None]:
    """A function that passes records on, and keeps completed samples. observers: plugins' functions; one that fails is
    removed."""
    ready, observer = entry.pending.ready, entry.session.observer

    def on_record(record: Mapping[str, Any]) -> None:
        if record["rank"] == 0 or record["kind"] in ("start", "end"):
            # The same records whether or not a plugin observes all of them.
            observer.record(ready, record)
        if record["kind"] == "sample" and isinstance(ready.tokenizer, DecodesIds):
            text = decode_completion(ready.tokenizer, ready.sample_ids, record["ids"])
            entry.facts.setdefault("samples", {})[record["moment"]] = text
        for plugin, function in list(observers):
            try:
                function(plan=ready.plan, record=record)
            # A plugin's observer must not affect the run, whatever it raises, nor end the process.
            except (Exception, SystemExit) as error:
                observers.remove((plugin, function))
                words = f"plugin {plugin!r} no longer observes this attempt: {type(error).__name__}: {error}"
                observer.message(words)

    return on_record


def decode_completion(tokenizer: DecodesIds, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of ids that follow a prompt, decoded with it: some tokenizers drop a text's leading blank."""
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids)


def _save_tokenizer(folder: Path, tokenizer: Tokenizer | None, observer: RunObserver) -> None:
    """Save the tokenizer's files with the model, so that transformers loads both from one folder."""
    if not isinstance(tokenizer, HasTokenizerFiles):
        observer.message(f"the model is in {folder}; its tokenizer has no files to save with it")
        return
    try:
        for name, content in tokenizer.files().items():
            (folder / name).write_bytes(content)
    except OSError as error:
        observer.message(f"the model is in {folder}; its tokenizer could not be saved with it: {error}")
        return
    observer.message(f"the model and its tokenizer are in {folder}")


def _can_measure_peak(plan: Plan) -> bool:
    """Whether the peak is unknown and can be measured; that of products in fp8 is not."""
    accelerator = plan.accelerator
    return not accelerator.peak_flops and accelerator.can_calibrate and not PRECISIONS[plan.spec.precision].float8
