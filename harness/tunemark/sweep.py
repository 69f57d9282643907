"""Carry out plans: prepare their data, launch every attempt, and give each run's result as soon as it is known.

Attempts are taken in rounds (every run once, then every run again), so that a drift of the machine spreads over all
runs instead of falling on the last. A run whose attempt fails is not tried again; the sweep goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tunemark.data import Prepared, prepare, tokenizer_of
from tunemark.errors import BadData, BadExperiment, TunemarkError
from tunemark.experiment import Plan
from tunemark.launch import CodeCopy, Ended, Interpreter, copy_code, examine, host_facts, processor, run_worker
from tunemark.plugin import Catalog, Decodes, HasFiles, PutsBack, Tokenizer, WatchesJobs
from tunemark.results import Result, Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A plan with all that its launch needs: nothing has touched the device yet.

    tokenizer: where a text is to be completed or a model saved; sample_ids: the prompt.
    verification: what holding its strategy to one process has shown; None where that was not asked for.
    """

    plan: Plan
    data: Prepared
    code: CodeCopy
    interpreter: Interpreter
    fingerprint: str
    verification: Mapping[str, Any] | None = None
    tokenizer: Tokenizer | None = None
    sample_ids: tuple[int, ...] = ()


@dataclass(kw_only=True, slots=True)
class Watch:
    """What a caller may observe of a sweep; every function is optional in effect, none may raise.

    attempt: before each (ready, number, of). record: each record as it is read. ended: after each attempt.
    """

    message: Callable[[str], None] = field(default=lambda words: None)
    attempt: Callable[[Ready, int, int], None] = field(default=lambda ready, number, of: None)
    record: Callable[[Mapping[str, Any]], None] = field(default=lambda record: None)
    ended: Callable[[Ended], None] = field(default=lambda ended: None)


def make_ready(plans: Sequence[Plan], store: Store, watch: Watch) -> list[Ready]:
    """Check interpreters, copy the code and prepare the token files of all plans, before any device is touched."""
    for device in {plan.device.name: plan.device for plan in plans}.values():
        if isinstance(device, PutsBack) and (words := device.left_over(store.root.absolute())):
            watch.message(words)
    interpreters: dict[tuple[str, tuple[str, ...]], Interpreter] = {}
    data: dict[str, Prepared] = {}
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
        if plan.model.is_remote and not plan.spec.trust_remote_code:
            raise BadExperiment(
                what=f"{plan.model.name} is built by Python code out of {plan.model.pretrained}, which is not run",
                why="that code could do anything that you can",
                next="read it, then add --trust-remote-code; planning and auditing this model need none of it",
            )
        if not plan.accelerator.is_present:
            raise BadExperiment(
                what=f"{plan.device.name}:{plan.accelerator.name} is not on this machine",
                why="it is known from documents, which is enough to plan it",
                next="run it where the accelerator is; `tunemark list devices` shows what is here",
            )
        python = plan.spec.python or sys.executable
        asked = (python, plan.requires)
        if asked not in interpreters:
            interpreters[asked] = examine(python, plan.requires)
        key = json.dumps([plan.dataset.name, dict(plan.dataset_options), plan.model.name, plan.spec.train_on])
        if key not in data:
            data[key] = prepare(plan.dataset, plan.dataset_options, plan.model, plan.spec.train_on)
            watch.message(_data_words(plan, data[key]))
        tokens = data[key].token_file
        left = tokens.documents - (plan.spec.evaluate or 0)
        if left < 1:
            raise BadData(
                what=f"{plan.dataset.name} has {tokens.documents} documents, {plan.spec.evaluate} of them held out",
                why="nothing would be left to train on",
                next="hold out fewer with --evaluate, or use a larger dataset",
            )
        if plan.spec.batching == "pad" and left < plan.spec.global_batch:
            raise BadData(
                what=f"{plan.dataset.name} has {left} documents to train on, a step takes {plan.spec.global_batch}",
                why="a step of only a part of its batch would be another measurement",
                next="use a smaller --global-batch or --micro-batch, or a larger dataset",
            )
        code = copy_code([runtime, plan.device.runtime, plan.strategy.runtime], store.root)
        fingerprint = _fingerprint(code, data[key], interpreters[asked])
        tokenizer, sample_ids = _sample(plan)
        ready.append(
            Ready(
                plan=plan,
                data=data[key],
                code=code,
                interpreter=interpreters[asked],
                fingerprint=fingerprint,
                tokenizer=tokenizer,
                sample_ids=sample_ids,
            )
        )
    return ready


def _sample(plan: Plan) -> tuple[Tokenizer | None, tuple[int, ...]]:
    """The tokenizer, where text or files of it are needed, and the prompt's ids."""
    if plan.model.tokenizer is None or (plan.spec.sample is None and plan.spec.save is None):
        return None, ()
    tokenizer = tokenizer_of(plan.model.tokenizer)
    if plan.spec.sample is None:
        return tokenizer, ()
    if not isinstance(tokenizer, Decodes):
        raise BadExperiment(
            what=f"the tokenizer {tokenizer.name!r} cannot turn ids back into text",
            why="--sample shows a text",
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


def sweep(
    ready: Sequence[Ready],
    store: Store,
    catalog: Catalog,
    *,
    repeats: int,
    redo: bool,
    timeout_s: float,
    calibrate: bool,
    watch: Watch,
) -> Iterator[Result]:
    """Launch what is not finished and yield every run's result when its last attempt has ended."""
    left: dict[str, int] = {}
    series: dict[str, str] = {}
    for each in ready:
        run_id = each.plan.run_id
        # What was measured before a verification that is asked for now is not taken up again.
        verified = each.verification is not None
        # Where a model is to be left, finding that it was trained before would leave none.
        again = redo or each.plan.spec.save is not None
        done = 0 if again else store.finished_attempts(run_id, each.fingerprint, verified=verified)
        left[run_id] = max(0, repeats - done)
        series[run_id] = store.series(run_id, each.fingerprint, new=again or done == 0)
        if not left[run_id]:
            watch.message(
                f"{title(each.plan)}: finished before with the same code, data and interpreter (--redo repeats it)"
            )
            yield store.result(each.plan, catalog)
    for _ in range(repeats):
        for each in ready:
            run_id = each.plan.run_id
            if not left[run_id]:
                continue
            number = repeats - left[run_id] + 1
            watch.attempt(each, number, repeats)
            is_last = number == repeats
            ended = _attempt(each, store, catalog, series[run_id], number, is_last, timeout_s, calibrate, watch)
            watch.ended(ended)
            left[run_id] = left[run_id] - 1 if ended.status == "ok" else 0
            if not left[run_id]:
                yield store.result(each.plan, catalog)


def title(plan: Plan) -> str:
    """A run in a few words."""
    spec = plan.spec
    words = f"{spec.model} {spec.device}:{spec.size} {spec.strategy} {spec.precision} {spec.batching}"
    words += f" {spec.micro_batch}x{spec.sequence}"
    return words + (" breakdown" if spec.breakdown else "")


def _attempt(
    each: Ready,
    store: Store,
    catalog: Catalog,
    series: str,
    number: int,
    is_last: bool,
    timeout_s: float,
    calibrate: bool,
    watch: Watch,
) -> Ended:
    plan = each.plan
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{number}-{os.getpid()}"
    folder = store.new_attempt(plan, name)
    measured = calibrate and not plan.accelerator.peak_flops and plan.accelerator.can_calibrate
    assignment = plan.assignment(
        each.data.token_file,
        name,
        calibrate=measured,
        sample_ids=each.sample_ids,
        eos_id=each.tokenizer.eos_id if each.tokenizer else None,
        is_saving=is_last,
    )
    (folder / "plan.json").write_text(assignment.to_json())
    facts: dict[str, Any] = {
        "fingerprint": each.fingerprint,
        "series": series,
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "code_sha256": each.code.sha256,
        "interpreter": {"path": each.interpreter.path, "python": each.interpreter.python, **each.interpreter.versions},
        "dataset": dict(each.data.facts),
        "host": dict(host_facts()),
        "launched_s": time.monotonic(),
    }
    if each.verification is not None:
        facts["verification"] = dict(each.verification)
    store.write_attempt(plan, folder, facts)
    observers = catalog.observers("tunemark_record")

    def on_record(record: Mapping[str, Any]) -> None:
        watch.record(record)
        if record["kind"] == "sample" and isinstance(each.tokenizer, Decodes):
            facts.setdefault("samples", {})[record["moment"]] = each.tokenizer.decode(record["ids"])
        for plugin, function in list(observers):
            try:
                function(plan=plan, record=record)
            # A stranger's observer may not touch the run, whatever it raises.
            except Exception as error:
                observers.remove((plugin, function))
                watch.message(f"plugin {plugin!r} no longer observes this attempt: {type(error).__name__}: {error}")

    ended = Ended(status="killed", reason="interrupted", evidence="the harness was interrupted")
    held = ExitStack()
    try:
        try:
            variables = held.enter_context(plan.device.occupy(plan.accelerator, store.root.absolute()))
        except TunemarkError as error:
            ended = Ended(status="error", reason="device", evidence=_flat(error))
            return ended
        job = None
        if isinstance(plan.device, WatchesJobs):
            job = plan.device.watch(plan.accelerator, folder, watch.message)
        with job or nullcontext() as followed:
            ended = run_worker(
                python=each.interpreter.path,
                processes=plan.launch.processes,
                environment={**plan.launch.environment, **(variables or {})},
                code=each.code.folder,
                folder=folder,
                timeout_s=timeout_s,
                on_record=on_record,
                is_waiting=followed.is_waiting if followed else lambda: False,
            )
        if assignment.save and ended.status == "ok":
            _complete(Path(assignment.save), each.tokenizer, watch)
        if followed:
            facts["watched"] = dict(followed.facts())
            ended = _told(ended, facts["watched"].get("failure"))
    finally:
        try:
            held.close()
        except TunemarkError as error:
            facts["not_put_back"] = _flat(error)
            watch.message(str(error))
        facts.update(status=ended.status, reason=ended.reason, evidence=ended.evidence)
        store.write_attempt(plan, folder, facts)
    return ended


def _complete(folder: Path, tokenizer: Tokenizer | None, watch: Watch) -> None:
    """Put the tokenizer beside the saved model, so that transformers loads both from one folder."""
    if not isinstance(tokenizer, HasFiles):
        watch.message(f"the model is in {folder}; its tokenizer offers no files to put beside it")
        return
    try:
        for name, content in tokenizer.files().items():
            (folder / name).write_bytes(content)
    except OSError as error:
        watch.message(f"the model is in {folder}; its tokenizer could not be put beside it: {error}")
        return
    watch.message(f"the model and its tokenizer are in {folder}")


def _flat(error: TunemarkError) -> str:
    """An error's lines as one."""
    return "; ".join(" ".join(part.split()) for part in (error.what, error.why, error.next) if part)


def _told(ended: Ended, failure: str | None) -> Ended:
    """The end, with what the platform said of it: more than an exit code does."""
    if failure and ended.status in ("error", "oom"):
        return replace(ended, evidence=f"{failure}; {ended.evidence}")
    return ended


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does."""
    import signal  # needed here alone

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _fingerprint(code: CodeCopy, data: Prepared, interpreter: Interpreter) -> str:
    parts: list[object] = [
        code.sha256,
        data.token_file.sha256,
        interpreter.path,
        interpreter.python,
        interpreter.versions,
    ]
    parts += [processor(), os.cpu_count()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _data_words(plan: Plan, data: Prepared) -> str:
    tokens = data.token_file
    how = "read from the cache" if data.cached else "tokenised"
    words = f"{plan.dataset.name}: {tokens.documents:,} documents, {tokens.tokens:,} tokens"
    return f"{words}, {how} in {data.seconds:.2f} s, sha256 {tokens.sha256[:12]}"
