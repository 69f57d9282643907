"""All checks of one plugin, in order: its import, its facts, its models' arithmetic, short runs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tunemark.errors import BadExperiment, UnknownName, did_you_mean
from tunemark.experiment import make_experiment, make_grid_points, make_plans
from tunemark.experiment.value_parsing import parse_named_options
from tunemark.launch import copy_code, query_interpreter
from tunemark.physics import count_parameters
from tunemark.plugin import (
    INTERFACE,
    Catalog,
    Dataset,
    Device,
    ExplainsAbsence,
    Model,
    PluginContribution,
    Strategy,
    Trainer,
)
from tunemark.plugin.catalog import ENTRY_POINT_GROUP, SLOW_S
from tunemark.temporary import temporary_folder
from tunemark.testing.bigram_model import NAME as BIGRAMS
from tunemark.testing.check import Check, fail_check, judge_check, pass_check, skip_check
from tunemark.testing.fact_checks import check_facts, check_recount, subject_of
from tunemark.testing.model_checks import MEASURES, check_orphans, judge_measures
from tunemark.testing.run_checks import RunChecks, end_marked_processes
from tunemark_worker import linux_proc
from tunemark_worker.contract import TokenFile

PLUGIN_CHECKS = ("import", "interface", "lazy", "speed", "quiet", "hooks", "processes")
NAMES = (
    *PLUGIN_CHECKS,
    "name",
    "facts",
    "capabilities",
    "tokenizer",
    "recount",
    *MEASURES,
    "run",
    "honesty",
    "parity",
    "kill",
)
# Number of parameters above which a model is only built, on the meta device: training takes minutes and gigabytes.
MAX_TRAINED_PARAMETERS = 60_000_000
# Number of parameters up to which a model needs no garbage collection after its checks.
_SMALL = 1_000_000
# Sequence length of the arithmetic checks, tokens, unless the model's maximum is shorter.
_SEQUENCE = 64
_ROWS = 4
# Time limits for an import with its hooks, and for the arithmetic of one model.
IMPORT_LIMIT_S = 60.0
MODEL_LIMIT_S = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _InstalledPlugin:
    """An installed plugin, loaded or not."""

    name: str
    module: str
    distribution: str


class Kit:
    """The checks of what `target` names: an entry point, a distribution with all its plugins, or one offer of a plugin,
    for a dataset with options (`name:path=FILE`). only: names of checks, empty for all. python: the interpreter in
    which runtimes are checked and short runs train, for a device whose torch is not tunemark's; None for this one.
    Raises `UnknownName` if nothing has that name, `BadExperiment` if it has no such option or `python` has no torch."""

    def __init__(self, target: str, *, only: Sequence[str] = (), python: str | None = None) -> None:
        unknown = [name for name in only if name not in NAMES]
        if unknown:
            raise UnknownName(what=f"no check named {unknown[0]!r}", next=did_you_mean(unknown[0], NAMES))
        self._python = _find_interpreter(python)
        points = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
        own = importlib.metadata.EntryPoint(name="kit", value="tunemark.testing.bigram_model", group=ENTRY_POINT_GROUP)
        self._only = only
        installed = [
            _InstalledPlugin(name=p.name, module=p.value, distribution=p.dist.name if p.dist else "unknown")
            for p in sorted(set(points), key=lambda p: p.name)
        ]
        name, self._options = _split_options(target)
        # Import in a separate process first: a plugin whose import hangs or exits is not imported in this one.
        self._imports = {p.name: _import_plugin(p) for p in _plugins_named(name, installed)}
        fatal = [name for name, found in self._imports.items() if found.answers is None]
        self._catalog = Catalog([*(p for p in points if p.name not in fatal), own])
        offers = [o for o in self._catalog.offers() if o.plugin != "kit"]
        self._plugins, self._offers = _resolve(name, installed, offers)
        for option in self._options:
            takes = [o.answer.options for o in self._offers if isinstance(o.answer, Dataset)]
            if len(takes) != 1 or option not in takes[0]:
                words = "it is not a dataset, and takes none" if len(takes) != 1 else did_you_mean(option, takes[0])
                raise BadExperiment(what=f"{name} has no option {option!r}", next=words)

    @property
    def expected_checks(self) -> list[tuple[str, str]]:
        """(check, subject) of all checks that `checks` will yield, in order."""
        expected_checks = [(name, f"plugin {p.name}") for p in self._plugins for name in PLUGIN_CHECKS]
        for offer in self._offers:
            expected_checks += [(name, subject_of(offer)) for name in self._check_names(offer)]
        return [(name, subject) for name, subject in expected_checks if self._wants(name)]

    def checks(self) -> Iterator[Check]:
        """Run the checks and yield each result; planned checks without a result are yielded as failed at the end."""
        # No check needs the network, and a hub that does not answer takes minutes to time out.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        open_checks = dict.fromkeys(self.expected_checks)
        with temporary_folder("check") as folder:
            for check in self._run_all(folder):
                if self._wants(check.name):
                    open_checks.pop((check.name, check.subject), None)
                    yield check
        for name, subject in open_checks:
            yield fail_check(name, subject, "it was not reached")

    def _wants(self, name: str) -> bool:
        return not self._only or name in self._only

    def _check_names(self, offer: PluginContribution) -> list[str]:
        answer = offer.answer
        names = ["name", "facts", *(["capabilities"] if _runtime_kind(offer) else [])]
        if isinstance(answer, Model):
            names += ["tokenizer"] if answer.tokenizer else []
            names += _measures_of(answer)
            names += ["run", "kill"] if offer is self._smallest_model() else []
        elif isinstance(answer, Dataset):
            names += ["recount"]
        elif isinstance(answer, Strategy):
            # A search chooses one of the other strategies.
            names += [] if answer.is_search else ["parity"]
        elif isinstance(answer, Trainer):
            names += [] if answer.file_options else ["parity"]
        elif offer.hook == "tunemark_devices":
            names += ["honesty", "kill"]
        return names

    def _smallest_model(self) -> PluginContribution | None:
        """The smallest runnable model, which real runs use."""
        models = [o for o in self._offers if isinstance(o.answer, Model) and o.answer.runtime and not o.is_taken]
        small = [o for o in models if count_parameters(o.answer.architecture).total <= MAX_TRAINED_PARAMETERS]
        return min(small, key=lambda o: count_parameters(o.answer.architecture).total, default=None)

    def _run_all(self, folder: Path) -> Iterator[Check]:
        for plugin in self._plugins:
            if any(self._wants(name) for name in PLUGIN_CHECKS):
                yield from self._check_plugin(plugin)
        for offer in self._offers:
            if self._wants("name") or self._wants("facts") or self._wants("tokenizer"):
                yield from check_facts(offer, self._catalog, self._options)
            if isinstance(offer.answer, Dataset) and self._wants("recount"):
                yield check_recount(offer.answer, self._catalog, self._options)
        if self._wants("capabilities"):
            yield from self._check_capabilities(folder)
        if any(self._wants(name) for name in MEASURES):
            yield from self._check_models(folder)
        yield from self._check_runs(RunChecks(self._catalog, folder, self._python))

    # -- the plugin as a whole

    def _check_plugin(self, plugin: _InstalledPlugin) -> Iterator[Check]:
        subject = f"plugin {plugin.name}"
        imported = self._imports.get(plugin.name) or _import_plugin(plugin)
        if imported.answers is None:
            yield fail_check("import", subject, f"{plugin.module} ends the process that imports it: {imported.words}")
            for name in PLUGIN_CHECKS[1:-1]:
                yield skip_check(name, subject, "it cannot be imported")
            yield check_orphans("processes", subject, imported.left, "its import")
            return
        found = imported.answers
        failure = found["failure"]
        if failure and not found["heavy"]:
            yield fail_check("import", subject, f"{plugin.module}: {failure}")
        else:
            yield pass_check("import", subject, f"{plugin.module} ({plugin.distribution})")
        broken = [b.reason for b in self._catalog.broken if b.plugin == plugin.name]
        interface = [r for r in broken if "plugin interface" in r or "TUNEMARK_INTERFACE" in r]
        declared = next((p.interface for p in self._catalog.plugins if p.name == plugin.name), "")
        words = f"it needs {declared}, this is {INTERFACE}" if declared else f"it declares none, this is {INTERFACE}"
        yield judge_check("interface", subject, interface, words)
        heavy = [
            f"its facts import {name}: only a runtime may, because every command waits for it"
            for name in found["heavy"]
        ]
        yield judge_check("lazy", subject, heavy, "its facts import neither torch nor another heavy package")
        slow = [f"{what} takes {s:.2g} s (limit {SLOW_S:g} s)" for what, s in found["seconds"].items() if s > SLOW_S]
        total = sum(found["seconds"].values())
        yield judge_check("speed", subject, slow, f"import and hooks take {total:.3f} s")
        noisy = [f"{what} prints {count} bytes on standard output" for what, count in found["printed"].items() if count]
        yield judge_check("quiet", subject, noisy, "nothing is printed on standard output, which is for results")
        others = [r for r in broken if r not in interface]
        yield judge_check("hooks", subject, others, "each hook is known and returns the right types")
        if linux_proc.is_supported():
            yield check_orphans("processes", subject, imported.left, "its import and its hooks")
        else:
            yield skip_check("processes", subject, "this host has no /proc to look for processes in")

    # -- the methods of its runtimes

    def _check_capabilities(self, folder: Path) -> Iterator[Check]:
        """Whether the worker can call the runtimes as it will; one worker imports them all."""
        offers = [o for o in self._offers if _runtime_kind(o)]
        for offer in [o for o in offers if isinstance(o.answer, Trainer)]:
            missing = [name for name in offer.answer.requires if importlib.util.find_spec(name) is None]
            if missing and self._python is None:
                offers.remove(offer)
                yield skip_check("capabilities", subject_of(offer), f"this interpreter lacks {', '.join(missing)}")
        words = [word for offer in offers for word in (_runtime_kind(offer), str(offer.answer.runtime))]
        try:
            code = copy_code(words[1::2], folder)
        except Exception as error:  # a module is missing, which the facts' check reports
            for offer in offers:
                yield skip_check("capabilities", subject_of(offer), f"{type(error).__name__}: {error}")
            return
        command = [self._python or sys.executable, "-m", "tunemark_worker.capabilities", *words]
        ended = _run_limited(command, {"PYTHONPATH": str(code.folder)}, folder, IMPORT_LIMIT_S)
        found = dict(json.loads(line) for line in (folder / "out.log").read_text().splitlines() if line[:1] == "[")
        for offer in offers:
            problems = found.get(offer.answer.runtime, [f"the worker did not get this far: {ended}"])
            good = f"{offer.answer.runtime} has the methods of its protocol, and no other arguments than theirs"
            yield judge_check("capabilities", subject_of(offer), problems, good)

    # -- the arithmetic of its models

    def _check_models(self, folder: Path) -> Iterator[Check]:
        """One worker checks all models; if it dies, a new one continues with the remaining models."""
        offers = [o for o in self._offers if isinstance(o.answer, Model) and o.answer.runtime]
        left = [o.answer for o in offers]
        while left:
            answers, words = self._examine(left, folder)
            for model in list(left):
                rows = answers.get(model.name)
                if rows is None:
                    break
                left.remove(model)
                ended = "" if rows["ended"] else words
                yield from judge_measures(model, _sequence(model), rows["measures"], ended, _measures_of(model))
            else:
                return
            if not answers:
                model = left.pop(0)
                yield from judge_measures(model, _sequence(model), {}, words, _measures_of(model))

    def _examine(self, models: Sequence[Model], folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
        """The worker's rows by model, as far as it got, and how it ended."""
        mark = uuid.uuid4().hex
        answers, request = folder / f"{mark}.jsonl", folder / f"{mark}.json"
        entries = []
        runtimes = []
        for model in models:
            try:
                assignment = self._assignment(model)
            except Exception as error:  # the offer may be invalid
                return {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
            size = count_parameters(model.architecture).total
            entries.append(
                {"assignment": json.loads(assignment), "meta": size > MAX_TRAINED_PARAMETERS, "collect": size > _SMALL}
            )
            runtimes.append(str(model.runtime))
        try:
            query_interpreter(
                self._python or sys.executable, sorted({name for model in models for name in model.requires})
            )
            code = copy_code(runtimes, folder)
        except Exception as error:  # a package or module is missing
            return {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
        request.write_text(json.dumps({"answers": str(answers), "mark": mark, "threads": 1, "models": entries}))
        command = [self._python or sys.executable, "-m", "tunemark_worker.conformance", str(request)]
        variables = {linux_proc.MARK_VARIABLE: mark, "PYTHONPATH": str(code.folder), "OMP_NUM_THREADS": "1"}
        words = _run_limited(command, variables, folder, MODEL_LIMIT_S * len(models))
        end_marked_processes(mark)
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
        (plan,) = make_plans(make_grid_points(make_experiment(settings, None)), self._catalog)
        # Planned by another name, so that a model whose name is taken is examined too.
        file = TokenFile(path="", sha256="", documents=0, tokens=0, pad_id=0)
        return replace(plan, model=model).assignment(file, "check", measure_peak=False).to_json()

    # -- short runs

    def _check_runs(self, runs: RunChecks) -> Iterator[Check]:
        smallest = self._smallest_model()
        if smallest is not None:
            subject = subject_of(smallest)
            if self._wants("run"):
                yield _run_guarded("run", subject, lambda: runs.run(smallest.answer))
            if self._wants("kill"):
                yield _run_guarded("kill", subject, lambda: runs.kill(smallest.answer.name, "cpu", "1", subject))
        for offer in self._offers:
            if offer.hook == "tunemark_devices":
                yield from self._check_device(runs, offer)
        strategies = [o for o in self._offers if isinstance(o.answer, Strategy) and not o.answer.is_search]
        model = smallest.answer.name if smallest else "mistral-tiny"
        for offer in strategies if self._wants("parity") else ():
            strategy = offer.answer
            check = _run_guarded("parity", "", lambda strategy=strategy: runs.parity(strategy, model))  # type: ignore[misc]
            yield replace(check, subject=subject_of(offer))
        trainers = [o for o in self._offers if isinstance(o.answer, Trainer) and o.answer.runtime]
        for offer in trainers if self._wants("parity") else ():
            if offer.answer.file_options:
                continue
            name = offer.answer.name
            check = _run_guarded("parity", "", lambda name=name: runs.trainer_parity(name, model))  # type: ignore[misc]
            yield replace(check, subject=subject_of(offer))

    def _check_device(self, runs: RunChecks, offer: PluginContribution) -> Iterator[Check]:
        device: Device = offer.answer
        subject = subject_of(offer)
        absent = "" if offer.is_taken else _reason_absent(device)
        if offer.is_taken or absent:
            why = absent or "its name is taken, so it cannot be selected"
            yield skip_check("honesty", subject, why)
            yield skip_check("kill", subject, why)
            return
        if self._wants("honesty"):
            yield _run_guarded("honesty", subject, lambda: runs.honesty(device))
        if self._wants("kill"):
            yield _run_guarded("kill", subject, lambda: runs.kill(BIGRAMS, device.name, None, subject))


def _run_guarded(name: str, subject: str, check: Callable[[], Check]) -> Check:
    """Run one check; if third-party code raises, the check has failed and the others continue."""
    try:
        return check()
    except Exception as error:
        traceback.print_exc()
        return fail_check(name, subject, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _reason_absent(device: Device) -> str:
    try:
        if device.accelerators():
            return ""
        return "it is not on this machine" + (f": {device.absence()}" if isinstance(device, ExplainsAbsence) else "")
    except Exception as error:  # third-party code
        return f"listing its sizes raises {type(error).__name__}: {error}"


def _find_interpreter(python: str | None) -> str | None:
    """The absolute path of an interpreter that has torch; None for the running one."""
    if python is None:
        return None
    path = shutil.which(os.path.expanduser(python))
    if path is None:
        raise BadExperiment(
            what=f"{python!r} is not an executable file",
            why="flag --python",
            next="give the path of a Python interpreter, such as venv/bin/python",
        )
    # Symbolic links are not resolved: a virtual environment's interpreter is one.
    return query_interpreter(os.path.abspath(path), ["torch"]).path


def _split_options(target: str) -> tuple[str, dict[str, str]]:
    try:
        return parse_named_options(target)
    except ValueError:
        return target, {}  # the name itself holds a colon


def _plugins_named(target: str, installed: Sequence[_InstalledPlugin]) -> list[_InstalledPlugin]:
    """The plugin of that name, or else those of the distribution of that name."""

    def key(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    own = [p for p in installed if p.name == target]
    return own or [p for p in installed if key(p.distribution) == key(target)]


class _ImportResult(NamedTuple):
    """The result of importing a plugin and calling its hooks in a process. answers: None if it did not get that far.
    words: how the process ended. left: (pid, command) of processes that still ran afterwards."""

    answers: dict[str, Any] | None
    words: str
    left: list[tuple[int, str]]


def _import_plugin(plugin: _InstalledPlugin) -> _ImportResult:
    with temporary_folder("import") as name:
        mark = uuid.uuid4().hex
        answers = Path(name) / "answers.json"
        command = [sys.executable, "-m", "tunemark.testing.import_check", str(answers), plugin.module]
        # The process runs in another folder, so relative paths must be made absolute.
        places = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        variables = {linux_proc.MARK_VARIABLE: mark, **({"PYTHONPATH": os.pathsep.join(places)} if places else {})}
        words = _run_limited(command, variables, Path(name), IMPORT_LIMIT_S)
        left = end_marked_processes(mark)
        try:
            return _ImportResult(json.loads(answers.read_text()), words, left)
        except (OSError, ValueError):
            return _ImportResult(None, words, left)


def _resolve(
    target: str, installed: Sequence[_InstalledPlugin], offers: Sequence[PluginContribution]
) -> tuple[list[_InstalledPlugin], list[PluginContribution]]:
    """The plugins and offers that a name stands for."""
    if plugins := _plugins_named(target, installed):
        names = {p.name for p in plugins}
        return plugins, [o for o in offers if o.plugin in names]
    one = [o for o in offers if o.name == target or getattr(o.answer, "name", None) == target]
    if one:
        names = {o.plugin for o in one}
        return [p for p in installed if p.name in names], one
    known = {p.name for p in installed} | {p.distribution for p in installed} | {o.name for o in offers}
    raise UnknownName(
        what=f"no plugin named {target!r}, and nothing that one offers",
        why="a name is an entry point of the group `tunemark`, a distribution with one, or an offered name",
        next=did_you_mean(target, known).partition(" There is:")[0] + "; see `tunemark list plugins`",
    )


def _runtime_kind(offer: PluginContribution) -> str:
    """What kind of runtime an offer names; empty if it names none."""
    kinds = {"tunemark_devices": "device", "tunemark_models": "model", "tunemark_strategies": "strategy",
             "tunemark_trainers": "trainer"}  # fmt: skip
    is_loaded = getattr(offer.answer, "runtime", None) is not None and not getattr(offer.answer, "is_search", False)
    return kinds.get(offer.hook, "") if is_loaded else ""


def _measures_of(model: Model) -> tuple[str, ...]:
    """The measures of a model; one too large to train here is only built, on torch's meta device."""
    if model.runtime is None:
        return ()
    return MEASURES if count_parameters(model.architecture).total <= MAX_TRAINED_PARAMETERS else ("parameters",)


def _sequence(model: Model) -> int:
    return min(_SEQUENCE, model.architecture.max_position_embeddings)


def _run_limited(command: list[str], variables: Mapping[str, str], folder: Path, limit_s: float) -> str:
    """Run a process in a new session until its end or the limit; returns its exit code and last line of stderr."""
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
            linux_proc.send_signal(job.pid, signal.SIGKILL)
            job.wait()
    lines = [line.strip() for line in err.read_text(errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1][:300]}" if lines and words != "exit code 0" else ""
    return words + last
