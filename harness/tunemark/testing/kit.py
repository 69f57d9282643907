"""All checks of one plugin, in order: its import, its facts, its models' arithmetic, short runs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tunemark.errors import BadExperiment, UnknownName, did_you_mean
from tunemark.experiment import make_experiment, points, resolve_all
from tunemark.experiment.values import named_options
from tunemark.launch import copy_code, examine
from tunemark.physics import parameters
from tunemark.plugin import INTERFACE, Catalog, Dataset, Device, Model, Offer, Strategy
from tunemark.plugin.catalog import GROUP, SLOW_S
from tunemark.testing.arithmetic import MEASURES, judge, left_behind
from tunemark.testing.bigrams import NAME as BIGRAMS
from tunemark.testing.check import Check, failed, judged, passed, skipped
from tunemark.testing.facts import facts, recount, subject_of
from tunemark.testing.runs import Runs, end_marked
from tunemark_worker import leftover
from tunemark_worker.contract import TokenFile

OF_PLUGIN = ("import", "interface", "lazy", "speed", "quiet", "hooks", "processes")
NAMES = (*OF_PLUGIN, "name", "facts", "tokenizer", "recount", *MEASURES, "run", "honesty", "parity", "kill")
# Parameters above which a model is built on the meta device alone: training a larger one takes minutes and gigabytes.
LARGE = 60_000_000
# Parameters below which what a model leaves in memory is no matter.
_SMALL = 1_000_000
# Slots of a row on which a model's arithmetic is checked, unless it takes less.
_SEQUENCE = 64
_ROWS = 4
# Seconds for an import and its hooks, and for the arithmetic of one model.
IMPORT_LIMIT_S = 60.0
MODEL_LIMIT_S = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plugin:
    """An installed plugin, loaded or not."""

    name: str
    module: str
    distribution: str


class Kit:
    """The checks of what `asked` names: an entry point, a distribution with all of its plugins, or one thing that a
    plugin offers, a dataset with its options (`name:path=FILE`). only: names of checks, empty for all. Raises
    `UnknownName` where nothing is called so, `BadExperiment` where the options are of nothing."""

    def __init__(self, asked: str, *, only: Sequence[str] = ()) -> None:
        unknown = [name for name in only if name not in NAMES]
        if unknown:
            raise UnknownName(what=f"no check named {unknown[0]!r}", next=did_you_mean(unknown[0], NAMES))
        points = list(importlib.metadata.entry_points(group=GROUP))
        own = importlib.metadata.EntryPoint(name="kit", value="tunemark.testing.bigrams", group=GROUP)
        self._only = only
        installed = [
            _Plugin(name=p.name, module=p.value, distribution=p.dist.name if p.dist else "unknown")
            for p in sorted(set(points), key=lambda p: p.name)
        ]
        name, self._options = _with_options(asked)
        # First in a process of its own: an import that does not end, or ends the process, is not tried in this one.
        self._imports = {p.name: _imported(p) for p in _of_name(name, installed)}
        deadly = [name for name, found in self._imports.items() if found.answers is None]
        self._catalog = Catalog([*(p for p in points if p.name not in deadly), own])
        offers = [o for o in self._catalog.offers() if o.plugin != "kit"]
        self._plugins, self._offers = _found(name, installed, offers)
        for option in self._options:
            takes = [o.answer.options for o in self._offers if isinstance(o.answer, Dataset)]
            if len(takes) != 1 or option not in takes[0]:
                words = "is no dataset, and takes none" if len(takes) != 1 else did_you_mean(option, takes[0])
                raise BadExperiment(what=f"{name} has no option {option!r}", next=words)

    @property
    def planned(self) -> list[tuple[str, str]]:
        """(check, subject) of all that `checks` will yield, in order."""
        planned = [(name, f"plugin {p.name}") for p in self._plugins for name in OF_PLUGIN]
        for offer in self._offers:
            planned += [(name, subject_of(offer)) for name in self._of(offer)]
        return [(name, subject) for name, subject in planned if self._wants(name)]

    def checks(self) -> Iterator[Check]:
        """Carry them out, each yielded when it is known; what none has answered in the end has failed."""
        # No check needs the network, and a hub that does not answer takes minutes to say so.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        open_checks = dict.fromkeys(self.planned)
        with tempfile.TemporaryDirectory(prefix="tunemark-check-") as folder:
            for check in self._all(Path(folder)):
                if self._wants(check.name):
                    open_checks.pop((check.name, check.subject), None)
                    yield check
        for name, subject in open_checks:
            yield failed(name, subject, "it was not reached")

    def _wants(self, name: str) -> bool:
        return not self._only or name in self._only

    def _of(self, offer: Offer) -> list[str]:
        answer = offer.answer
        names = ["name", "facts"]
        if isinstance(answer, Model):
            names += ["tokenizer"] if answer.tokenizer else []
            names += _measures(answer)
            names += ["run", "kill"] if offer is self._smallest() else []
        elif isinstance(answer, Dataset):
            names += ["recount"]
        elif isinstance(answer, Strategy):
            # A search's choice is one of the others.
            names += [] if answer.is_search else ["parity"]
        elif offer.hook == "tunemark_devices":
            names += ["honesty", "kill"]
        return names

    def _smallest(self) -> Offer | None:
        """The model with which real runs are made."""
        models = [o for o in self._offers if isinstance(o.answer, Model) and o.answer.runtime and not o.is_taken]
        small = [o for o in models if parameters(o.answer.architecture).total <= LARGE]
        return min(small, key=lambda o: parameters(o.answer.architecture).total, default=None)

    def _all(self, folder: Path) -> Iterator[Check]:
        for plugin in self._plugins:
            if any(self._wants(name) for name in OF_PLUGIN):
                yield from self._plugin(plugin)
        for offer in self._offers:
            if self._wants("name") or self._wants("facts") or self._wants("tokenizer"):
                yield from facts(offer, self._catalog, self._options)
            if isinstance(offer.answer, Dataset) and self._wants("recount"):
                yield recount(offer.answer, self._catalog, self._options)
        if any(self._wants(name) for name in MEASURES):
            yield from self._arithmetic(folder)
        yield from self._runs(Runs(self._catalog, folder))

    # -- the plugin as a whole

    def _plugin(self, plugin: _Plugin) -> Iterator[Check]:
        subject = f"plugin {plugin.name}"
        imported = self._imports.get(plugin.name) or _imported(plugin)
        if imported.answers is None:
            yield failed("import", subject, f"{plugin.module} ends the process that imports it: {imported.words}")
            for name in OF_PLUGIN[1:-1]:
                yield skipped(name, subject, "it cannot be imported")
            yield left_behind("processes", subject, imported.left, "its import")
            return
        found = imported.answers
        failure = found["failure"]
        if failure and not found["heavy"]:
            yield failed("import", subject, f"{plugin.module}: {failure}")
        else:
            yield passed("import", subject, f"{plugin.module} ({plugin.distribution})")
        broken = [b.reason for b in self._catalog.broken if b.plugin == plugin.name]
        interface = [r for r in broken if "plugin interface" in r or "TUNEMARK_INTERFACE" in r]
        declared = next((p.interface for p in self._catalog.plugins if p.name == plugin.name), "")
        words = f"it needs {declared}, this is {INTERFACE}" if declared else f"it declares none, this is {INTERFACE}"
        yield judged("interface", subject, interface, words)
        heavy = [
            f"its facts import {name}: only a runtime may, because every command would wait" for name in found["heavy"]
        ]
        yield judged("lazy", subject, heavy, "neither torch nor what is as heavy is imported for its facts")
        slow = [f"{what} takes {s:.2g} s (limit {SLOW_S:g} s)" for what, s in found["seconds"].items() if s > SLOW_S]
        total = sum(found["seconds"].values())
        yield judged("speed", subject, slow, f"import and hooks take {total:.3f} s")
        loud = [f"{what} prints {count} bytes on standard output" for what, count in found["printed"].items() if count]
        yield judged("quiet", subject, loud, "nothing is printed on standard output, which is the result's")
        others = [r for r in broken if r not in interface]
        yield judged("hooks", subject, others, "each hook is known, and returns what it should")
        if leftover.is_known():
            yield left_behind("processes", subject, imported.left, "its import and its hooks")
        else:
            yield skipped("processes", subject, "this host has no /proc to look for processes in")

    # -- the arithmetic of its models

    def _arithmetic(self, folder: Path) -> Iterator[Check]:
        """One worker for all models of one set of required modules; where it dies, the next model has a new one."""
        offers = [o for o in self._offers if isinstance(o.answer, Model) and o.answer.runtime]
        left = [o.answer for o in offers]
        while left:
            answers, words = self._examined(left, folder)
            for model in list(left):
                rows = answers.get(model.name)
                if rows is None:
                    break
                left.remove(model)
                ended = "" if rows["ended"] else words
                yield from judge(model, _sequence(model), rows["measures"], ended, _measures(model))
            else:
                return
            if not answers:
                model = left.pop(0)
                yield from judge(model, _sequence(model), {}, words, _measures(model))

    def _examined(self, models: Sequence[Model], folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
        """What the worker found, by model, as far as it came, and its last words."""
        mark = uuid.uuid4().hex
        answers, request = folder / f"{mark}.jsonl", folder / f"{mark}.json"
        asked = []
        runtimes = []
        for model in models:
            try:
                assignment = self._assignment(model)
            except Exception as error:  # what is offered may be nonsense
                return {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
            size = parameters(model.architecture).total
            asked.append({"assignment": json.loads(assignment), "meta": size > LARGE, "collect": size > _SMALL})
            runtimes.append(str(model.runtime))
        try:
            examine(sys.executable, sorted({name for model in models for name in model.requires}))
            code = copy_code(runtimes, folder)
        except Exception as error:  # a package that cannot be found, or a module that is missing
            return {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
        request.write_text(json.dumps({"answers": str(answers), "mark": mark, "threads": 1, "models": asked}))
        command = [sys.executable, "-m", "tunemark_worker.conformance", str(request)]
        variables = {leftover.VARIABLE: mark, "PYTHONPATH": str(code.folder), "OMP_NUM_THREADS": "1"}
        words = _limited(command, variables, folder, MODEL_LIMIT_S * len(models))
        end_marked(mark)
        found: dict[str, dict[str, Any]] = {}
        for line in answers.read_text().splitlines() if answers.exists() else []:
            row = json.loads(line)
            rows = found.setdefault(row["model"], {"ended": False, "measures": {}})
            if "measure" in row:
                rows["measures"][row["measure"]] = row
            rows["ended"] |= bool(row.get("ended"))
        return found, words

    def _assignment(self, model: Model) -> str:
        settings = {
            "model": BIGRAMS,
            "dataset": "synthetic",
            "device": "cpu",
            "size": "1",
            "strategy": "none",
            "precision": "fp32",
            "sequence": _sequence(model),
            "micro_batch": _ROWS,
        }
        (plan,) = resolve_all(points(make_experiment(settings, None)), self._catalog)
        # A model whose name is taken cannot be planned by it, and is examined all the same.
        file = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
        return replace(plan, model=model).assignment(file, "check", calibrate=False).to_json()

    # -- short runs

    def _runs(self, runs: Runs) -> Iterator[Check]:
        smallest = self._smallest()
        if smallest is not None:
            subject = subject_of(smallest)
            if self._wants("run"):
                yield _guarded("run", subject, lambda: runs.run(smallest.answer))
            if self._wants("kill"):
                yield _guarded("kill", subject, lambda: runs.kill(smallest.answer.name, "cpu", "1", subject))
        for offer in self._offers:
            if offer.hook == "tunemark_devices":
                yield from self._device(runs, offer)
        strategies = [o for o in self._offers if isinstance(o.answer, Strategy) and not o.answer.is_search]
        model = smallest.answer.name if smallest else "mistral-tiny"
        for offer in strategies if self._wants("parity") else ():
            strategy = offer.answer
            check = _guarded("parity", "", lambda strategy=strategy: runs.parity(strategy, model))  # type: ignore[misc]
            yield replace(check, subject=subject_of(offer))

    def _device(self, runs: Runs, offer: Offer) -> Iterator[Check]:
        device: Device = offer.answer
        subject = subject_of(offer)
        absent = "" if offer.is_taken else _absent(device)
        if offer.is_taken or absent:
            why = absent or "its name is taken, so that it cannot be asked for"
            yield skipped("honesty", subject, why)
            yield skipped("kill", subject, why)
            return
        if self._wants("honesty"):
            yield _guarded("honesty", subject, lambda: runs.honesty(device))
        if self._wants("kill"):
            yield _guarded("kill", subject, lambda: runs.kill(BIGRAMS, device.name, None, subject))


def _guarded(name: str, subject: str, check: Callable[[], Check]) -> Check:
    """One check, failed by whatever it raises: a stranger's code is on the other side, and the other checks go on."""
    try:
        return check()
    except Exception as error:
        traceback.print_exc()
        return failed(name, subject, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _absent(device: Device) -> str:
    try:
        return "" if device.accelerators() else "it is not on this machine"
    except Exception as error:  # a stranger's device is on the other side
        return f"it cannot say its sizes: {type(error).__name__}: {error}"


def _with_options(asked: str) -> tuple[str, dict[str, str]]:
    try:
        return named_options(asked)
    except ValueError:
        return asked, {}  # a name that holds a colon of its own


def _of_name(asked: str, installed: Sequence[_Plugin]) -> list[_Plugin]:
    """The plugin of that name, or else those of the distribution."""

    def key(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    own = [p for p in installed if p.name == asked]
    return own or [p for p in installed if key(p.distribution) == key(asked)]


class _Imported(NamedTuple):
    """What a process found that imported a plugin and called its hooks. answers: None where it did not come so far;
    words: its last ones. left: processes that were still there."""

    answers: dict[str, Any] | None
    words: str
    left: list[tuple[int, str]]


def _imported(plugin: _Plugin) -> _Imported:
    with tempfile.TemporaryDirectory(prefix="tunemark-import-") as name:
        mark = uuid.uuid4().hex
        answers = Path(name) / "answers.json"
        command = [sys.executable, "-m", "tunemark.testing.imported", str(answers), plugin.module]
        # It runs in another folder, where a relative path would lead elsewhere.
        places = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        variables = {leftover.VARIABLE: mark, **({"PYTHONPATH": os.pathsep.join(places)} if places else {})}
        words = _limited(command, variables, Path(name), IMPORT_LIMIT_S)
        left = end_marked(mark)
        try:
            return _Imported(json.loads(answers.read_text()), words, left)
        except (OSError, ValueError):
            return _Imported(None, words, left)


def _found(asked: str, installed: Sequence[_Plugin], offers: Sequence[Offer]) -> tuple[list[_Plugin], list[Offer]]:
    """The plugins and the offers that a name stands for."""
    if plugins := _of_name(asked, installed):
        names = {p.name for p in plugins}
        return plugins, [o for o in offers if o.plugin in names]
    one = [o for o in offers if o.name == asked or getattr(o.answer, "name", None) == asked]
    if one:
        names = {o.plugin for o in one}
        return [p for p in installed if p.name in names], one
    known = {p.name for p in installed} | {p.distribution for p in installed} | {o.name for o in offers}
    raise UnknownName(
        what=f"no plugin named {asked!r}, and nothing that one offers",
        why="it is an entry point of the group `tunemark`, a distribution with one, or a name that is offered",
        next=did_you_mean(asked, known).partition(" There is:")[0] + "; see `tunemark list plugins`",
    )


def _measures(model: Model) -> tuple[str, ...]:
    """What is measured of a model: of one too large to be trained here, what is built on torch's meta device."""
    if model.runtime is None:
        return ()
    return MEASURES if parameters(model.architecture).total <= LARGE else ("parameters",)


def _sequence(model: Model) -> int:
    return min(_SEQUENCE, model.architecture.max_position_embeddings)


def _limited(command: list[str], variables: Mapping[str, str], folder: Path, limit_s: float) -> str:
    """Run a process to its end or to the limit, in a session of its own; its exit code and last words."""
    err = folder / "err.log"
    with open(folder / "out.log", "wb") as stdout, open(err, "wb") as stderr:
        job = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = job.wait(limit_s)
            words = f"exit code {code}"
        except subprocess.TimeoutExpired:
            words = f"it did not end within {limit_s:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(job.pid, signal.SIGKILL)
            job.wait()
    lines = [line.strip() for line in err.read_text(errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1][:300]}" if lines and words != "exit code 0" else ""
    return words + last
