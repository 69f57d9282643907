"""Prepare runs before any device is used: check interpreters, copy the code, and make the token files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunemark.data import (
    PreparedData,
    count_epoch_tokens,
    download_pretrained,
    load_tokenizer,
    make_row_settings,
    prepare_data,
    read_token_file,
)
from tunemark.errors import BadData, BadExperiment
from tunemark.experiment import Plan
from tunemark.launch import (
    CodeCopy,
    Interpreter,
    check_interpreter,
    copy_code,
    find_remarks,
    query_interpreter,
    user_code_folder,
)
from tunemark.plugin import DecodesIds, ReportsUnrestoredState, Tokenizer
from tunemark.predict.search import SearchLog
from tunemark.results import Store
from tunemark.results.run_rules import check_epoch
from tunemark.runner.series_fingerprint import make_fingerprint
from tunemark.runner.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """A plan with everything that its launch needs; nothing has used the device yet.

    None where not requested. search: log of the search that chose the layout; None where the user chose it. tokenizer:
    for runs that complete a text or save a model; sample_ids: the prompt.
    """

    plan: Plan
    data: PreparedData
    code: CodeCopy
    interpreter: Interpreter
    fingerprint: str
    verification: Mapping[str, Any] | None = None
    search: SearchLog | None = None
    tokenizer: Tokenizer | None = None
    sample_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Prepares runs of a session; what several share, such as their token file, is made once."""

    session: Session
    interpreters: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Interpreter] = field(default_factory=dict)
    data: dict[str, PreparedData] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def prepare(self, plan: Plan, search: SearchLog | None = None) -> PreparedRun:
        """Prepare one run. search: the log of the search that chose its layout."""
        session = self.session
        runtime = _check_runnable(plan)
        interpreter = self._query(plan)
        plan = _download_weights(plan)
        data = self._prepare_data(plan)
        _check_documents(plan, data)
        self._say_what_is_left_out(plan, data)
        code = _copy_code(plan, _list_runtimes(plan, runtime), session.store)
        session.launching.check(plan.launch, session.store.root.absolute())
        tokenizer, sample_ids = _open_sample(plan)
        return PreparedRun(
            plan=plan,
            data=data,
            code=code,
            interpreter=interpreter,
            fingerprint=make_fingerprint(plan, code, data, interpreter, search),
            search=search,
            tokenizer=tokenizer,
            sample_ids=sample_ids,
        )

    def _query(self, plan: Plan) -> Interpreter:
        python = plan.spec.python or sys.executable
        asked = (python, plan.requires, plan.device_packages)
        if asked not in self.interpreters:
            self.interpreters[asked] = query_interpreter(*asked)
            for remark in find_remarks(self.interpreters[asked], plan):
                self.session.observer.message(remark)
        check_interpreter(self.interpreters[asked], plan)
        return self.interpreters[asked]

    def _prepare_data(self, plan: Plan) -> PreparedData:
        key = json.dumps([plan.dataset.name, dict(plan.dataset_options), plan.model.name, plan.spec.train_on])
        if key not in self.data:
            self.data[key] = prepare_data(plan.dataset, plan.dataset_options, plan.model, plan.spec.train_on)
            self.session.observer.message(_format_data(plan, self.data[key]))
        return self.data[key]

    def _say_what_is_left_out(self, plan: Plan, data: PreparedData) -> None:
        """Say, once for each dataset and sequence, what no run of them trains on: findings of the results, too."""
        epoch = count_epoch_tokens(data, make_row_settings(plan.spec))
        for finding in check_epoch(epoch._asdict(), data.facts):
            words = f"{plan.dataset.name}, sequence {plan.spec.sequence:,}: {finding.message}"
            if words not in self.said:
                self.said.add(words)
                self.session.observer.message(words)


def prepare_runs(plans: Sequence[Plan], session: Session) -> list[PreparedRun]:
    """Prepare runs whose layouts are chosen."""
    warn_unrestored(plans, session)
    preparation = Preparation(session=session)
    return [preparation.prepare(plan) for plan in plans]


def warn_unrestored(plans: Sequence[Plan], session: Session) -> None:
    """Say which devices an earlier run left in another state than it found them in."""
    for device in {plan.device.name: plan.device for plan in plans}.values():
        if isinstance(device, ReportsUnrestoredState):
            words = device.unrestored_state(session.store.root.absolute())
            if words:
                session.observer.message(words)


def _list_runtimes(plan: Plan, model: str) -> list[str]:
    """What the worker imports of plugins. model: the model's runtime."""
    own = [plan.trainer.runtime] if plan.trainer.runtime else []
    return [model, plan.device.runtime, plan.strategy.runtime, *own]


def _copy_code(plan: Plan, runtimes: Sequence[str], store: Store) -> CodeCopy:
    """The code of this machine's jobs is in the user's own folder; that of other hosts', where they all can read it."""
    if plan.launcher.is_remote:
        return copy_code(runtimes, store.root / ".code", is_private=False)
    return copy_code(runtimes, user_code_folder())


def _check_runnable(plan: Plan) -> str:
    """The model's runtime; `BadExperiment` where the plan can be made and not be run."""
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
    return runtime


def _download_weights(plan: Plan) -> Plan:
    """The plan with its pretrained weights on this machine; on other machines the processes download them."""
    repository = plan.model.pretrained
    if plan.spec.weights != "pretrained" or plan.weights_path or repository is None or plan.launcher.is_remote:
        return plan
    found = download_pretrained(
        repository, allow_pickle=plan.allow_pickle, trust_remote_code=plan.model.is_remote and plan.trust_remote_code
    )
    return replace(plan, weights_path=str(found))


def _check_documents(plan: Plan, data: PreparedData) -> None:
    """`BadData` where too few documents are left to train on."""
    left = data.token_file.documents - _check_held_out(plan, data)
    if plan.spec.batching != "pack" and left < plan.spec.global_batch:
        raise BadData(
            what=f"{plan.dataset.name} has {left} documents to train on, a step takes {plan.spec.global_batch}",
            why="a step with only part of its batch would measure something else",
            next="use a smaller --global-batch or --micro-batch, or a larger dataset",
        )


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


def _format_data(plan: Plan, data: PreparedData) -> str:
    tokens = data.token_file
    how = "read from the cache" if data.cached else "tokenised"
    words = f"{plan.dataset.name}: {tokens.documents:,} documents, {tokens.tokens:,} tokens"
    return f"{words}, {how} in {data.seconds:.2f} s, sha256 {tokens.sha256[:12]}"
