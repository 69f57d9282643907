"""Execute plans: prepare their data, launch every attempt, and yield each run's result as soon as it is complete.

Attempts go in rounds (every run once, then every run again), so that a drift of the machine spreads over all runs
instead of falling on the last. A run whose attempt fails is not repeated; the sweep goes on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunemark.analysis import judge
from tunemark.data import PreparedData, download_pretrained, load_tokenizer, prepare_data, read_token_file
from tunemark.errors import BadData, BadExperiment, BadStore, TunemarkError
from tunemark.experiment import Plan, is_saved
from tunemark.launch import (
    POLL_S,
    AttemptEnd,
    AttemptFollower,
    CodeCopy,
    Interpreter,
    LocalLauncher,
    check_versions,
    copy_code,
    processor_name,
    query_interpreter,
    read_host_facts,
)
from tunemark.launch.device_monitor import make_device_monitor
from tunemark.plugin import (
    Catalog,
    DecodesIds,
    HasTokenizerFiles,
    JobSpec,
    JobWatch,
    LauncherSession,
    ReportsUnrestoredState,
    StartedJob,
    Tokenizer,
    WatchesJobs,
)
from tunemark.predict.search import SearchLog
from tunemark.results import Result, Store
from tunemark_worker.contract import Assignment

# Seconds that a run waits for space on a full disk before it fails.
_DISK_WAIT_S = 30.0
# No space left, or quota exceeded; Windows has no quota error.
_DISK_FULL_ERRORS = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """A plan with everything that its launch needs; nothing has used the device yet.

    launching: starts its jobs. max_restarts: how often an attempt's processes may be restarted. verification: result of
    comparing its strategy with one process; None where not requested. search: log of the search that chose the layout;
    None where the user chose it. tokenizer: for runs that complete a text or save a model; sample_ids: the prompt.
    """

    plan: Plan
    data: PreparedData
    code: CodeCopy
    interpreter: Interpreter
    fingerprint: str
    launching: LauncherSession
    max_restarts: int = 0
    verification: Mapping[str, Any] | None = None
    search: SearchLog | None = None
    tokenizer: Tokenizer | None = None
    sample_ids: tuple[int, ...] = ()


@dataclass(kw_only=True, slots=True)
class RunObserver:
    """Callbacks on the progress of a sweep, all optional; none may raise.

    message: a line of text. attempt: before each attempt (run, number of the attempt, of how many). record: each record
    of rank 0 as it is read, and `start` and `end` of the other ranks. ended: after each attempt. Attempts of several
    runs overlap where the launcher takes several jobs.
    """

    message: Callable[[str], None] = field(default=lambda words: None)
    attempt: Callable[[PreparedRun, int, int], None] = field(default=lambda ready, number, of: None)
    record: Callable[[PreparedRun, Mapping[str, Any]], None] = field(default=lambda ready, record: None)
    ended: Callable[[PreparedRun, AttemptEnd], None] = field(default=lambda ready, ended: None)


def prepare_runs(
    plans: Sequence[Plan],
    store: Store,
    watch: RunObserver,
    launching: LauncherSession | None = None,
    *,
    max_restarts: int = 0,
    searches: Mapping[str, SearchLog] | None = None,
) -> list[PreparedRun]:
    """Check interpreters, copy the code and prepare the token files of all plans, before any device is used.
    launching: None starts them on this machine. searches: logs of layout searches by run_id."""
    starts = launching or LocalLauncher({})
    for device in {plan.device.name: plan.device for plan in plans}.values():
        if isinstance(device, ReportsUnrestoredState) and (words := device.unrestored_state(store.root.absolute())):
            watch.message(words)
    interpreters: dict[tuple[str, tuple[str, ...]], Interpreter] = {}
    data: dict[str, PreparedData] = {}
    ready = []
    for plan in plans:
        runtime = plan.model.runtime
        if runtime is None:
            raise BadExperiment(
                what=f"{plan.model.name} cannot be run",
                why="facts only: no runtime in this version; its dimensions are there for plans and audits",
                next="choose a model that `tunemark list models` does not mark as facts only, or install a plugin that "
                "provides it",
            )
        if plan.model.is_remote and not plan.trust_remote_code:
            raise BadExperiment(
                what=f"{plan.model.name} is built by Python code out of {plan.model.pretrained}, which is not run",
                why="that code could do anything that you can do",
                next="read it, then add --trust-remote-code; planning and auditing this model need none of it",
            )
        if not plan.accelerator.is_present:
            raise BadExperiment(
                what=f"{plan.device.name}:{plan.accelerator.name} is not on this machine",
                why="its published facts are enough to plan a run, not to start one",
                next="run it where the accelerator is; `tunemark list devices` shows what is here",
            )
        python = plan.spec.python or sys.executable
        asked = (python, plan.requires)
        if asked not in interpreters:
            interpreters[asked] = query_interpreter(python, plan.requires)
        check_versions(interpreters[asked], plan.minimum_versions, run_title(plan))
        plan = _download_weights(plan)
        key = json.dumps([plan.dataset.name, dict(plan.dataset_options), plan.model.name, plan.spec.train_on])
        if key not in data:
            data[key] = prepare_data(plan.dataset, plan.dataset_options, plan.model, plan.spec.train_on)
            watch.message(_format_data(plan, data[key]))
        left = data[key].token_file.documents - _check_held_out(plan, data[key])
        if plan.spec.batching == "pad" and left < plan.spec.global_batch:
            raise BadData(
                what=f"{plan.dataset.name} has {left} documents to train on, a step takes {plan.spec.global_batch}",
                why="a step with only part of its batch would measure something else",
                next="use a smaller --global-batch or --micro-batch, or a larger dataset",
            )
        code = copy_code([runtime, plan.device.runtime, plan.strategy.runtime], store.root)
        starts.check(plan.launch, store.root.absolute())
        searched = (searches or {}).get(plan.run_id)
        tokenizer, sample_ids = _open_sample(plan)
        ready.append(
            PreparedRun(
                plan=plan,
                data=data[key],
                code=code,
                interpreter=interpreters[asked],
                fingerprint=_fingerprint(code, data[key], interpreters[asked], plan, searched),
                launching=starts,
                max_restarts=max_restarts,
                search=searched,
                tokenizer=tokenizer,
                sample_ids=sample_ids,
            )
        )
    return ready


def _download_weights(plan: Plan) -> Plan:
    """The plan with its pretrained weights on this machine; on other machines the processes download them."""
    repository = plan.model.pretrained
    if plan.spec.weights != "pretrained" or plan.weights_path or repository is None or plan.launcher.is_remote:
        return plan
    found = download_pretrained(
        repository, allow_pickle=plan.allow_pickle, trust_remote_code=plan.model.is_remote and plan.trust_remote_code
    )
    return replace(plan, weights_path=str(found))


def _check_held_out(plan: Plan, data: PreparedData) -> int:
    """Number of documents held out for evaluation; `BadData` where none would be left to train on."""
    wanted = plan.spec.evaluate or 0
    if not wanted:
        return 0
    offsets = read_token_file(Path(data.token_file.path)).offsets
    usable = int((offsets[1:] - offsets[:-1] > 1).sum())
    if wanted >= usable:
        raise BadData(
            what=f"{wanted} documents of {plan.dataset.name} cannot be held out: it has {usable}",
            why="--evaluate counts documents of two tokens or more, and at least one must be left to train on",
            next="hold out fewer, or use a larger dataset",
        )
    return wanted


def _open_sample(plan: Plan) -> tuple[Tokenizer | None, tuple[int, ...]]:
    """The tokenizer, if a sample or a saved model needs it, and the token ids of the sample's prompt."""
    if plan.model.tokenizer is None or (plan.spec.sample is None and plan.spec.save is None):
        return None, ()
    tokenizer = load_tokenizer(plan.model.tokenizer)
    if plan.spec.sample is None:
        return tokenizer, ()
    if not isinstance(tokenizer, DecodesIds):
        raise BadExperiment(
            what=f"the tokenizer {tokenizer.name!r} cannot turn ids back into text",
            why="--sample shows generated text",
            next="leave out --sample, or report it to the tokenizer's plugin",
        )
    (ids,) = tokenizer.encode([plan.spec.sample])
    prompt = (*([] if tokenizer.bos_id is None else [tokenizer.bos_id]), *ids)
    room = plan.model.architecture.max_position_embeddings
    if not ids or len(prompt) >= room:
        raise BadExperiment(
            what=f"a sample of {len(prompt)} tokens cannot be completed",
            why=f"{plan.model.name} takes from 1 to {room - 1}",
            next="give a text of another length",
        )
    return tokenizer, prompt


def run_sweep(
    ready: Sequence[PreparedRun],
    store: Store,
    catalog: Catalog,
    *,
    repeats: int,
    redo: bool,
    timeout_s: float,
    calibrate: bool,
    watch: RunObserver,
) -> Iterator[Result]:
    """Launch the attempts that are missing and yield every run's result when its last attempt has ended."""
    left: dict[str, int] = {}
    series: dict[str, str] = {}
    for each in ready:
        run_id = each.plan.run_id
        # Attempts without the verification that is requested now do not count as finished.
        verified = each.verification is not None
        done = 0 if redo else store.finished_attempts(run_id, each.fingerprint, verified=verified)
        # A model that is to be saved and is missing must be trained again, even where all attempts are finished.
        again = redo or (done >= repeats and _needs_saving(each.plan))
        done = 0 if again else done
        left[run_id] = max(0, repeats - done)
        series[run_id] = store.series(run_id, each.fingerprint, new=again or done == 0)
        if not left[run_id]:
            watch.message(
                f"{run_title(each.plan)}: finished before with the same code, data and interpreter (--redo repeats it)"
            )
            yield judge_run(each.plan, store, catalog)
    # A run's next attempt goes to the end of the queue, which makes rounds, with one job at a time and with several.
    queue = deque(each for each in ready if left[each.plan.run_id])
    active: list[_RunningAttempt] = []
    try:
        while queue or active:
            while queue and len(active) < queue[0].launching.max_jobs:
                each = queue.popleft()
                number = repeats - left[each.plan.run_id] + 1
                watch.attempt(each, number, repeats)
                name = series[each.plan.run_id]
                active.append(
                    _RunningAttempt(
                        each,
                        store,
                        catalog,
                        name,
                        number,
                        timeout_s,
                        calibrate,
                        watch,
                        is_last=number == repeats,
                    )
                )
            over = [attempt for attempt in active if attempt.look()]
            for attempt in over:
                active.remove(attempt)
                each = attempt.ready
                run_id = each.plan.run_id
                ended = attempt.close()
                watch.ended(each, ended)
                left[run_id] = left[run_id] - 1 if ended.status == "ok" else 0
                if left[run_id]:
                    queue.append(each)
                else:
                    yield judge_run(each.plan, store, catalog)
            if not over:
                time.sleep(POLL_S)
    finally:
        for attempt in active:
            attempt.interrupt()
        for attempt in active:
            attempt.close()


def judge_run(plan: Plan, store: Store, catalog: Catalog) -> Result:
    """The judged result of a plan's newest series, which is stored beside its attempts too."""
    result = judge(store.result(plan.run_id), catalog, plan)
    store.write_result(result)
    return result


def run_title(plan: Plan) -> str:
    """A short description of a run."""
    spec = plan.spec
    words = f"{spec.model} {spec.device}:{spec.size} {spec.strategy} {spec.precision} {spec.batching}"
    words += f" {spec.micro_batch}x{spec.sequence}"
    return words + (" breakdown" if spec.breakdown else "")


class _RunningAttempt:
    """One running attempt: its folder in the store, its device, its job."""

    def __init__(
        self,
        ready: PreparedRun,
        store: Store,
        catalog: Catalog,
        series: str,
        number: int,
        timeout_s: float,
        calibrate: bool,
        watch: RunObserver,
        *,
        is_last: bool,
    ) -> None:
        self.ready, self._store, self._watch = ready, store, watch
        self._catalog = catalog
        self._observers = catalog.observers("tunemark_record")
        self._resources = ExitStack()
        self._started: StartedJob | None = None
        self._following: AttemptFollower | None = None
        self._job_watch: JobWatch | None = None
        self._ended = AttemptEnd(status="killed", reason="interrupted", evidence="the harness was interrupted")
        self._assignment: Assignment | None = None
        plan = ready.plan
        if self._adopt(timeout_s):
            return
        self._name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{number}-{os.getpid()}"
        measured = calibrate and not plan.accelerator.peak_flops and plan.accelerator.can_calibrate
        self._assignment = plan.assignment(
            ready.data.token_file,
            self._name,
            measure_peak=measured,
            sample_ids=ready.sample_ids,
            eos_id=ready.tokenizer.eos_id if ready.tokenizer else None,
            is_saving=is_last and _needs_saving(plan),
        )
        self._facts = self._make_facts(series)
        self._folder = store.attempt_folder(plan, self._name)
        try:
            self._make_folder()
        except BadStore as error:
            # The sweep goes on: there may be space again for later runs.
            self._ended = AttemptEnd(status="error", reason="store", evidence=_format_error_line(error))
            return
        try:
            self._start(timeout_s)
        except TunemarkError as error:
            self._ended = AttemptEnd(status="error", reason="device", evidence=_format_error_line(error))
        except OSError as error:
            self._ended = AttemptEnd(status="error", reason="launch", evidence=f"it could not be started: {error}")
        except BaseException:
            self.close()
            raise

    def look(self) -> bool:
        """Read new records; True where the attempt is over or must be ended."""
        return self._following is None or self._following.look()

    def interrupt(self) -> None:
        """Ask the job to end, without waiting."""
        if self._started is not None:
            self._started.interrupt()

    def close(self) -> AttemptEnd:
        """End all processes, restore the device, and store how the attempt ended."""
        try:
            if self._following is not None:
                self._ended = self._following.close()
                saved = self._assignment.save if self._assignment else None
                if saved and self._ended.status == "ok":
                    _save_tokenizer(Path(saved), self.ready.tokenizer, self._watch)
        finally:
            self._release()
        return self._ended

    def _make_folder(self) -> None:
        """Write the attempt's first files. Waits for space on a full disk, which is often full for a short time only: a
        sweep that does not wait would fail all its runs meanwhile."""
        assert self._assignment is not None, "this command starts the attempt itself"
        until_s = time.monotonic() + _DISK_WAIT_S
        while True:
            try:
                self._store.new_attempt(self.ready.plan, self._folder, self._assignment, self._facts)
            except BadStore as error:
                is_full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL_ERRORS
                if not is_full or time.monotonic() >= until_s:
                    raise
                if not self._facts.get("waited_for_room"):
                    self._facts["waited_for_room"] = True
                    words = f"no space left in {self._store.root}, waiting up to {_DISK_WAIT_S:.0f} s for it"
                    self._watch.message(f"{run_title(self.ready.plan)}: {words}")
                time.sleep(1.0)
            else:
                return

    def _make_facts(self, series: str) -> dict[str, Any]:
        ready, plan = self.ready, self.ready.plan
        facts: dict[str, Any] = {
            "fingerprint": ready.fingerprint,
            "series": series,
            "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
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
        if ready.max_restarts:
            facts["launcher"]["max_restarts"] = ready.max_restarts
        if not plan.launcher.is_remote:
            # By the clock of the worker's instants; another machine has another clock.
            facts["launched_s"] = time.monotonic()
        if ready.verification is not None:
            facts["verification"] = dict(ready.verification)
        if ready.search is not None:
            facts["search"] = asdict(ready.search)
        return facts

    def _start(self, timeout_s: float) -> None:
        ready, plan = self.ready, self.ready.plan
        variables = self._resources.enter_context(plan.device.occupy(plan.accelerator, self._store.root.absolute()))
        if isinstance(plan.device, WatchesJobs):
            watched = plan.device.watch(plan.accelerator, self._folder, self._watch.message)
            self._job_watch = self._resources.enter_context(watched)
        if not plan.launcher.is_remote:
            # Devices of other machines cannot be sampled from here.
            sampled = make_device_monitor(
                plan.device, plan.accelerator, self._catalog, self._folder, say=self._watch.message
            )
            self._resources.enter_context(sampled)
        job = self._make_job(variables or {})
        self._follow(job, ready.launching.start(job), timeout_s)

    def _make_job(self, variables: Mapping[str, str]) -> JobSpec:
        ready, launch = self.ready, self.ready.plan.launch
        return JobSpec(
            name=f"tunemark-{ready.plan.run_id}-{self._folder.name}",
            python=ready.interpreter.path,
            processes=launch.processes,
            threads=launch.threads,
            environment={**launch.environment, **variables},
            code=ready.code.folder,
            folder=self._folder,
            gpus=int(str(launch.options.get("gpus", 0))),
            max_restarts=ready.max_restarts,
            nodes=launch.nodes,
        )

    def _adopt(self, timeout_s: float) -> bool:
        """Follow a job that an earlier process of this command started and did not see end; False if there is none."""
        ready = self.ready
        if not ready.plan.launcher.is_remote:
            return False
        for folder, facts in self._store.unfinished(ready.plan.run_id, ready.fingerprint):
            self._folder, self._facts = folder, dict(facts)
            job = self._make_job({})
            started = ready.launching.adopt(job, facts.get("launcher", {}))
            if started is not None:
                self._watch.message(f"{run_title(ready.plan)}: taking up {folder.name}, which was started before")
                with suppress(OSError, ValueError):  # its original assignment; if lost, no tokenizer is saved
                    self._assignment = Assignment.from_json((folder / "plan.json").read_text())
                self._follow(job, started, timeout_s)
                return True
            words = "its command ended before it did, and its job can no longer be followed"
            self._facts.update(status="killed", reason="lost", evidence=words)
            self._store.write_attempt(ready.plan, folder, self._facts)
        return False

    def _follow(self, job: JobSpec, started: StartedJob, timeout_s: float) -> None:
        self._started = started
        self._following = AttemptFollower(
            job,
            started,
            timeout_s=timeout_s,
            on_record=self._on_record,
            is_waiting=self._job_watch.is_waiting if self._job_watch else lambda: False,
            every_record=bool(self._observers),
        )
        if facts := started.facts():
            self._facts["launcher"].update(facts)
            self._store.write_attempt(self.ready.plan, self._folder, self._facts)

    def _release(self) -> None:
        try:
            self._resources.close()
        except TunemarkError as error:
            self._facts["not_put_back"] = _format_error_line(error)
            self._watch.message(str(error))
        if self._job_watch is not None:
            self._facts["watched"] = dict(self._job_watch.facts())
            self._ended = _add_failure(self._ended, self._facts["watched"].get("failure"))
        if self._started is not None:
            self._facts["launcher"].update(self._started.facts())
        ended = self._ended
        self._facts.update(status=ended.status, reason=ended.reason, evidence=ended.evidence)
        self._store.write_attempt(self.ready.plan, self._folder, self._facts, self._assignment)

    def _on_record(self, record: Mapping[str, Any]) -> None:
        if record["rank"] == 0 or record["kind"] in ("start", "end"):
            # The same records whether or not a plugin observes all of them.
            self._watch.record(self.ready, record)
        if record["kind"] == "sample" and isinstance(self.ready.tokenizer, DecodesIds):
            text = _decode_completion(self.ready.tokenizer, self.ready.sample_ids, record["ids"])
            self._facts.setdefault("samples", {})[record["moment"]] = text
        for plugin, function in list(self._observers):
            try:
                function(plan=self.ready.plan, record=record)
            # A plugin's observer must not affect the run, whatever it raises.
            except Exception as error:
                self._observers.remove((plugin, function))
                words = f"plugin {plugin!r} no longer observes this attempt: {type(error).__name__}: {error}"
                self._watch.message(words)


def _needs_saving(plan: Plan) -> bool:
    """Whether a trained model is to be saved and was not yet."""
    return plan.spec.save is not None and not is_saved(plan.spec.save, plan.run_id)


def _decode_completion(tokenizer: DecodesIds, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of ids that follow a prompt, decoded with it: some tokenizers drop a text's leading blank."""
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids)


def _save_tokenizer(folder: Path, tokenizer: Tokenizer | None, watch: RunObserver) -> None:
    """Save the tokenizer's files with the model, so that transformers loads both from one folder."""
    if not isinstance(tokenizer, HasTokenizerFiles):
        watch.message(f"the model is in {folder}; its tokenizer has no files to save with it")
        return
    try:
        for name, content in tokenizer.files().items():
            (folder / name).write_bytes(content)
    except OSError as error:
        watch.message(f"the model is in {folder}; its tokenizer could not be saved with it: {error}")
        return
    watch.message(f"the model and its tokenizer are in {folder}")


def _format_error_line(error: TunemarkError) -> str:
    """An error's what, why and next in one line."""
    return "; ".join(" ".join(part.split()) for part in (error.what, error.why, error.next) if part)


def _add_failure(ended: AttemptEnd, failure: str | None) -> AttemptEnd:
    """The attempt's end with the platform's own failure message, which says more than an exit code."""
    if failure and ended.status in ("error", "oom"):
        return replace(ended, evidence=f"{failure}; {ended.evidence}")
    return ended


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within this context SIGTERM ends a sweep as Ctrl-C does."""
    import signal  # needed here alone

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _fingerprint(
    code: CodeCopy, data: PreparedData, interpreter: Interpreter, plan: Plan, search: SearchLog | None
) -> str:
    parts: list[object] = [
        code.sha256,
        data.token_file.sha256,
        interpreter.path,
        interpreter.python,
        interpreter.versions,
        plan.model.worker_architecture(),
        _list_weight_files(plan.weights_path or plan.spec.weights.partition(":")[2]),
    ]
    if plan.launcher.is_remote:
        parts += [plan.launcher.name, dict(plan.launcher_options)]
    else:
        parts += [processor_name(), os.cpu_count()]
    if search is not None and search.chosen is not None:
        # Attempts with another chosen layout are another series.
        parts.append(search.chosen.words())
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _list_weight_files(path: str) -> list[object]:
    """Name, size and modification time of each file of weights; empty where there is none."""
    folder = Path(path or os.devnull)
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.is_file() else []
    return [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]


def _format_data(plan: Plan, data: PreparedData) -> str:
    tokens = data.token_file
    how = "read from the cache" if data.cached else "tokenised"
    words = f"{plan.dataset.name}: {tokens.documents:,} documents, {tokens.tokens:,} tokens"
    return f"{words}, {how} in {data.seconds:.2f} s, sha256 {tokens.sha256[:12]}"
