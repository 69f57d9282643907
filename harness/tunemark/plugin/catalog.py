"""The installed plugins and what they offer, by name. Built-in and third-party plugins use the same entry points.

A plugin that fails to import, misspells a hook or raises in one is disabled and listed in `broken`; a name that two
plugins claim is refused when it is looked up. The other plugins stay usable.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pluggy

from tunemark.errors import PluginError, UnknownName, did_you_mean
from tunemark.plugin import hooks
from tunemark.plugin.descriptors import (
    LOCAL_LAUNCHER,
    OWN_TRAINER,
    Dataset,
    Format,
    Importer,
    Launcher,
    Model,
    ModelSource,
    Monitor,
    Strategy,
    Trainer,
)
from tunemark.plugin.exports import Exporter
from tunemark.plugin.protocols import Device

ENTRY_POINT_GROUP = "tunemark"
# Version of the plugin interface: hooks, descriptors, protocols, the worker's contract. The second number grows with
# additions, the first where something that a plugin may use is removed or changes its meaning. History:
#   1.0  the first stable interface
#   1.1  datasets of messages: Example.messages, Dataset.is_chat, HasChatTemplate, Tokenizer.chat_template;
#        sizes of several hosts: Launch.nodes, Job.nodes
#   2.0  the field's names throughout: docs/plugin-interface-2.md maps the old ones to the new
#   2.1  Example.tools, Example.where, HasRemarks; EndsSteps, CountsCompilations, ChecksInterpreter, ExplainsAbsence
#   2.2  trainers: tunemark_trainers, Trainer, TrainerRuntime, ReportsOwnRate
#   2.3  LimitsMemory; Trainer.absent
INTERFACE = "2.3"
# Seconds that a plugin's import, or one of its hooks, may take: every command waits for all of them.
SLOW_S = 1.0
# Seconds after which the user is told which plugin is still being waited for: it may never return.
_HANGS_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenPlugin:
    """A plugin that cannot be used, or one of its hooks that failed, and why."""

    plugin: str
    distribution: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginFacts:
    """A loaded plugin: its entry point's name, its distribution, and the interface version that it declares (empty
    where it declares none)."""

    name: str
    module: str
    distribution: str
    version: str
    interface: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginContribution:
    """One descriptor or device that a plugin's hook returned (`answer`). is_taken: another plugin claims the same name,
    so that neither can be used."""

    plugin: str
    hook: str
    name: str
    answer: Any
    is_taken: bool


class Catalog:
    """The installed plugins and what they offer; loaded once, on first use. slow_s: seconds above which an import or a
    hook counts as slow."""

    def __init__(
        self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None, *, slow_s: float = SLOW_S
    ) -> None:
        self._entry_points, self._slow_s = entry_points, slow_s
        self.broken: list[BrokenPlugin] = []
        self.seconds: dict[str, dict[str, float]] = {}
        """By plugin: the duration of its import ("import") and of each of its hooks."""
        self._answers: dict[str, dict[str, Any]] = {}
        self._taken: dict[tuple[str, str], list[str]] = {}

    @functools.cached_property
    def plugins(self) -> list[PluginFacts]:
        self._manager  # noqa: B018 - loading fills self._facts
        return self._facts

    def devices(self) -> dict[str, Device]:
        return self._named("tunemark_devices", Device)  # type: ignore[type-abstract]  # checked at run time

    def models(self) -> dict[str, Model]:
        return self._named("tunemark_models", Model)

    def model_sources(self) -> dict[str, ModelSource]:
        return self._named("tunemark_model_sources", ModelSource)

    def datasets(self) -> dict[str, Dataset]:
        return self._named("tunemark_datasets", Dataset)

    def strategies(self) -> dict[str, Strategy]:
        """By name; strategies that are for one device by "NAME on DEVICE"."""
        return self._named("tunemark_strategies", Strategy)

    def launchers(self) -> dict[str, Launcher]:
        """By name; `local` is always included."""
        return self._named("tunemark_launchers", Launcher)

    def trainers(self) -> dict[str, Trainer]:
        """By name; tunemark's own loop is always included."""
        return self._named("tunemark_trainers", Trainer)

    def trainer(self, name: str) -> Trainer:
        return self._look_up("trainer", name, self.trainers())

    def formats(self) -> dict[str, Format]:
        return self._named("tunemark_formats", Format)

    def exporters(self) -> dict[str, Exporter]:
        return self._named("tunemark_exporters", Exporter)

    def exporter(self, name: str) -> Exporter:
        return self._look_up("exporter", name, self.exporters())

    def importers(self) -> dict[str, Importer]:
        return self._named("tunemark_importers", Importer)

    def monitors(self) -> dict[str, Monitor]:
        return self._named("tunemark_monitors", Monitor)

    def monitor(self, name: str) -> Monitor:
        return self._look_up("monitor", name, self.monitors())

    def model(self, name: str, python: str | None = None) -> Model:
        """The model of that name, or for "SOURCE:REFERENCE" the model that the source finds. python: the interpreter
        that trains it, None for this one."""
        prefix, colon, reference = name.partition(":")
        source = self.model_sources().get(prefix) if colon and reference else None
        if source is None or name in self.models():
            return self._look_up("model", name, self.models())
        load = load_object(source.loader)
        found = load(reference, python) if source.takes_python else load(reference)
        if not isinstance(found, Model):
            raise PluginError(
                what=f"the source {prefix!r} returned {type(found).__name__} for {name!r}, which is not a Model",
                next=f"report it to the plugin that provides {source.loader}",
            )
        return found

    def device(self, name: str) -> Device:
        return self._look_up("device", name, self.devices())

    def dataset(self, name: str) -> Dataset:
        return self._look_up("dataset", name, self.datasets())

    def launcher(self, name: str) -> Launcher:
        return self._look_up("launcher", name, self.launchers())

    def strategy(self, name: str, device: str) -> Strategy:
        """The strategy of that name for a device: the one specific to it, or else the one for any device."""
        every = self.strategies()
        usable = {s.name: s for s in every.values() if not s.devices}
        usable.update((s.name, s) for key, s in every.items() if key == _on(s.name, device))
        own = _on(name, device)
        return every[own] if own in every else self._look_up("strategy", own if self._is_taken(own) else name, usable)

    def search_names(self) -> set[str]:
        """The names of strategies that stand for a layout search."""
        return {strategy.name for strategy in self.strategies().values() if strategy.is_search}

    def _is_taken(self, strategy: str) -> bool:
        return ("tunemark_strategies", strategy) in self._taken

    def observers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """(plugin, function) of every implementation of a hook, in order of registration."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        return [(each.plugin_name, _print_to_stderr(each.function)) for each in implementations]

    def offers(self) -> list[PluginContribution]:
        """Everything that plugins offer, including names that are claimed twice."""
        for hook, kind in _KINDS.items():
            self._named(hook, kind)
        return [replace(o, is_taken=(o.hook, o.name) in self._taken) for o in self._offers]

    def claimants(self, hook: str, name: str) -> list[str]:
        """The plugins that claim the same name; empty where no two do."""
        return list(self._taken.get((hook, name), []))

    def slow(self, plugin: str) -> str:
        """Text on the plugin's import and hooks that took longer than `slow_s`; empty where none did."""
        slow = [f"{what} took {s:.2g} s" for what, s in self.seconds.get(plugin, {}).items() if s > self._slow_s]
        return f"slow: {', '.join(slow)} (limit {self._slow_s:g} s)" if slow else ""

    def remarks(self) -> list[str]:
        """Warnings on plugins that are broken or slow, of those loaded and called so far."""
        warnings = [
            f"plugin {b.plugin!r} ({b.distribution}) is not used: {' '.join(b.reason.split())}" for b in self.broken
        ]
        for plugin in self.seconds:
            if slow := self.slow(plugin):
                name = f"{plugin!r} ({self._distribution(plugin)})"
                warnings.append(f"plugin {name} is {slow}: every command waits for it")
        return warnings

    @functools.cached_property
    def _manager(self) -> pluggy.PluginManager:
        manager = pluggy.PluginManager("tunemark")
        manager.add_hookspecs(hooks)
        self._facts: list[PluginFacts] = []
        self._offers: list[PluginContribution] = []
        found = self._entry_points
        if found is None:
            found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
        for point in sorted(set(found), key=lambda p: (p.name, p.value)):
            distribution = point.dist.name if point.dist else "unknown"
            try:
                with self._timed(point.name, "import"), redirect_stdout(sys.stderr):  # stdout is for results
                    plugin = point.load()
                interface = _interface(plugin)
                self._register(manager, point.name, plugin)
            except KeyboardInterrupt:
                raise
            # Third-party code can raise anything; only this plugin is disabled.
            except BaseException as error:
                why = f"{type(error).__name__}: {error}"
                self.broken.append(BrokenPlugin(plugin=point.name, distribution=distribution, reason=why))
                continue
            version = point.dist.version if point.dist else "unknown"
            own = {"name": point.name, "module": point.value, "distribution": distribution, "version": version}
            self._facts.append(PluginFacts(**own, interface=interface))
        return manager

    @staticmethod
    def _register(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
        if manager.has_plugin(name):
            raise PluginError(what=f"a plugin named {name!r} is already registered")
        try:
            manager.register(plugin, name=name)
        except pluggy.PluginValidationError:
            manager.unregister(name=name)
            raise
        for hook in manager.get_hookcallers(plugin) or []:
            if not hook.has_spec():
                manager.unregister(name=name)
                known = [n for n in vars(hooks) if n.startswith("tunemark_")]
                raise PluginError(what=f"no hook named {hook.name!r}", next=did_you_mean(hook.name, known))
        if not manager.get_hookcallers(plugin):
            manager.unregister(name=name)
            raise PluginError(what="it implements no hook", next="decorate its functions with tunemark.plugin.hookimpl")

    def _named(self, hook: str, kind: type[T]) -> dict[str, T]:
        if hook not in self._answers:
            self._answers[hook] = self._call_hook(hook, kind)
        return self._answers[hook]

    def _call_hook(self, hook: str, kind: type[T]) -> dict[str, T]:
        # These need no plugin.
        named: dict[str, T] = {each.name: each for each in (LOCAL_LAUNCHER, OWN_TRAINER) if isinstance(each, kind)}
        owner = dict.fromkeys(named, "tunemark")
        for plugin, function in self.observers(hook):
            try:
                with self._timed(plugin, hook), redirect_stdout(sys.stderr):  # a generator's body runs here
                    returned = function()
                    if not isinstance(returned, Iterable) or isinstance(returned, (str, bytes, Mapping)):
                        raise TypeError(f"{hook} returned {returned!r}, not a sequence of {kind.__name__}")
                    answers = list(returned)
                wrong = [a for a in answers if not isinstance(a, kind)]
                if wrong:
                    raise TypeError(f"{hook} returned {wrong[0]!r}, which is not a {kind.__name__}")
            except KeyboardInterrupt:
                raise
            # Third-party code can raise anything.
            except BaseException as error:
                reason = f"{hook}: {type(error).__name__}: {error}"
                self.broken.append(BrokenPlugin(plugin=plugin, distribution=self._distribution(plugin), reason=reason))
                continue
            for name, answer in [(name, each) for each in answers for name in _names(each)]:
                self._offers.append(
                    PluginContribution(plugin=plugin, hook=hook, name=name, answer=answer, is_taken=False)
                )
                if name in owner:
                    self._taken.setdefault((hook, name), [owner[name]]).append(plugin)
                owner.setdefault(name, plugin)
                named.setdefault(name, answer)
        for taken_hook, name in list(self._taken):
            if taken_hook == hook:
                named.pop(name, None)
        return named

    @contextmanager
    def _timed(self, plugin: str, what: str) -> Iterator[None]:
        start_s = time.perf_counter()
        message = f"still waiting for plugin {plugin!r}: {what} has taken {_HANGS_S:g} s"
        watchdog = threading.Timer(_HANGS_S, print, [message], {"file": sys.stderr, "flush": True})
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            self.seconds.setdefault(plugin, {})[what] = time.perf_counter() - start_s

    def _distribution(self, plugin: str) -> str:
        known = [f.distribution for f in self._facts if f.name == plugin]
        return next(iter(known + [b.distribution for b in self.broken if b.plugin == plugin]), "unknown")

    def _look_up(self, kind: str, name: str, named: dict[str, T]) -> T:
        if name in named:
            return named[name]
        for (hook, taken), plugins in self._taken.items():
            if taken == name and hook.startswith(f"tunemark_{kind[:5]}"):
                raise PluginError(
                    what=f"the {kind} {name!r} is claimed by {len(plugins)} plugins: {', '.join(plugins)}",
                    why="a name must be unique; none of them is used",
                    next="uninstall all but one: "
                    + ", ".join(f"{p} is from {self._distribution(p)!r}" for p in plugins),
                )
        failed = "; ".join(f"{b.plugin} ({b.distribution}) failed: {b.reason}" for b in self.broken)
        raise UnknownName(
            what=f"no {kind} named {name!r}",
            why=f"it may be in a plugin that could not be used: {failed}" if failed else "",
            next=did_you_mean(name, named) + ". Plugins can add more: see `tunemark list plugins`",
        )


def _interface(plugin: object) -> str:
    """The interface version that a plugin declares by `TUNEMARK_INTERFACE`; `PluginError` where it is not supported."""
    declared = getattr(plugin, "TUNEMARK_INTERFACE", "")
    if not declared:
        return ""
    parts = str(declared).split(".")
    if not isinstance(declared, str) or len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise PluginError(what=f"TUNEMARK_INTERFACE is {declared!r}", next='it must be text of two numbers, as "2.0"')
    ours = tuple(map(int, INTERFACE.split(".")))
    theirs = tuple(map(int, parts))
    if theirs[0] != ours[0] or theirs > ours:
        raise PluginError(
            what=f"it needs plugin interface {declared}, but this tunemark has {INTERFACE}",
            next="upgrade tunemark" if theirs > ours else "get a version of the plugin for this tunemark",
        )
    return declared


_KINDS: dict[str, type[Any]] = {
    "tunemark_devices": Device,
    "tunemark_models": Model,
    "tunemark_model_sources": ModelSource,
    "tunemark_datasets": Dataset,
    "tunemark_strategies": Strategy,
    "tunemark_trainers": Trainer,
    "tunemark_launchers": Launcher,
    "tunemark_formats": Format,
    "tunemark_exporters": Exporter,
    "tunemark_importers": Importer,
    "tunemark_monitors": Monitor,
}


def _names(answer: Any) -> list[str]:
    """The names under which an answer is looked up."""
    devices = answer.devices if isinstance(answer, Strategy) else ()
    return [_on(answer.name, device) for device in devices] or [str(answer.name)]


def _on(strategy: str, device: str) -> str:
    return f"{strategy} on {device}"


def _print_to_stderr(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its prints sent to standard error, as standard output is for results."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with redirect_stdout(sys.stderr):
            return function(*args, **kwargs)

    return wrapped


def load_object(name: str) -> Any:
    """Import the object that "package.module:Name" names. For `loader` and `render` fields, in the parent process."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            what=f"cannot load {name!r}", why=str(error), next="the plugin that names it is broken: report it there"
        ) from error
