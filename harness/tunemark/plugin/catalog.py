"""Who is there, by name. Built-in plugins and a stranger's arrive by the same entry points and have the same rights.

A plugin that fails to import, misspells a hook or raises in one is set aside and named in `broken`; a name taken
twice is refused when it is asked for. The others stay usable.
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
    LOCAL,
    Dataset,
    Format,
    Importer,
    Launcher,
    Model,
    ModelSource,
    Monitor,
    Strategy,
)
from tunemark.plugin.protocols import Device

GROUP = "tunemark"
# The plugin interface's version: hooks, descriptors, protocols, the worker's contract. The second number grows with
# what is added, the first where something that a plugin may use is taken away or changes its meaning. History:
#   1.0  the first that is promised
#   1.1  datasets of messages: Example.messages, Dataset.is_chat, HasChatTemplate, Tokenizer.chat_template;
#        sizes of several hosts: Launch.nodes, Job.nodes
INTERFACE = "1.1"
# Seconds that a plugin's import, or one of its hooks, may take: every command waits for all of them.
SLOW_S = 1.0
# Seconds after which a plugin that is still being waited for is named: it may never come to an end.
_HANGS_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A plugin that cannot be used (or one of its answers), and why."""

    plugin: str
    distribution: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginFacts:
    """A plugin that is loaded: its entry point's name, the distribution that brought it, and the interface that it
    says it was written for (empty where it says nothing)."""

    name: str
    module: str
    distribution: str
    version: str
    interface: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One answer of a plugin to a hook. is_taken: another plugin claims the same name, so that nobody has it."""

    plugin: str
    hook: str
    name: str
    answer: Any
    is_taken: bool


class Catalog:
    """The installed plugins and what they offer; loaded on first use, once. slow_s: seconds that an import or a hook
    may take without being called slow."""

    def __init__(
        self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None, *, slow_s: float = SLOW_S
    ) -> None:
        self._entry_points, self._slow_s = entry_points, slow_s
        self.broken: list[Broken] = []
        self.seconds: dict[str, dict[str, float]] = {}
        """By plugin: what its import ("import") and each of its hooks took."""

    @functools.cached_property
    def plugins(self) -> list[PluginFacts]:
        self._manager  # noqa: B018 - loading fills the facts
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
        """By name; those for one device by "NAME on DEVICE"."""
        return self._named("tunemark_strategies", Strategy)

    def launchers(self) -> dict[str, Launcher]:
        """By name; `local` is there whatever is installed."""
        return self._named("tunemark_launchers", Launcher)

    def formats(self) -> dict[str, Format]:
        return self._named("tunemark_formats", Format)

    def importers(self) -> dict[str, Importer]:
        return self._named("tunemark_importers", Importer)

    def monitors(self) -> dict[str, Monitor]:
        return self._named("tunemark_monitors", Monitor)

    def monitor(self, name: str) -> Monitor:
        return self._chosen("monitor", name, self.monitors())

    def model(self, name: str) -> Model:
        """The model of that name, or the one that a source finds by the reference after its own name."""
        prefix, colon, reference = name.partition(":")
        source = self.model_sources().get(prefix) if colon and reference else None
        if source is None or name in self.models():
            return self._chosen("model", name, self.models())
        found = load(source.loader)(reference)
        if not isinstance(found, Model):
            raise PluginError(
                what=f"the source {prefix!r} gave {type(found).__name__} for {name!r}, which is no Model",
                next=f"report it to the plugin that brings {source.loader}",
            )
        return found

    def device(self, name: str) -> Device:
        return self._chosen("device", name, self.devices())

    def dataset(self, name: str) -> Dataset:
        return self._chosen("dataset", name, self.datasets())

    def launcher(self, name: str) -> Launcher:
        return self._chosen("launcher", name, self.launchers())

    def strategy(self, name: str, device: str) -> Strategy:
        """The strategy of that name for a device: its own, or else the one for any."""
        every = self.strategies()
        fitting = {s.name: s for s in every.values() if not s.devices}
        fitting.update((s.name, s) for key, s in every.items() if key == _on(s.name, device))
        own = _on(name, device)
        return every[own] if own in every else self._chosen("strategy", own if self._is_taken(own) else name, fitting)

    def _is_taken(self, strategy: str) -> bool:
        return ("tunemark_strategies", strategy) in self._taken

    def observers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """(plugin, function) of every implementation of a hook, in order of registration."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        return [(each.plugin_name, _apart(each.function)) for each in implementations]

    def offers(self) -> list[Offer]:
        """Everything that every plugin offers, names that are taken twice included."""
        for hook, kind in _KINDS.items():
            self._named(hook, kind)
        return [replace(o, is_taken=(o.hook, o.name) in self._taken) for o in self._offers]

    def claimants(self, hook: str, name: str) -> list[str]:
        """The plugins that claim a name which is taken twice; empty where it is not."""
        return list(self._taken.get((hook, name), []))

    def slow(self, plugin: str) -> str:
        """What of a plugin took longer than it may, in words; empty where nothing did."""
        slow = [f"{what} took {s:.2g} s" for what, s in self.seconds.get(plugin, {}).items() if s > self._slow_s]
        return f"slow: {', '.join(slow)} (limit {self._slow_s:g} s)" if slow else ""

    def remarks(self) -> list[str]:
        """A sentence on each plugin that could not be used, or that every command waits for, as far as was asked."""
        found = [
            f"plugin {b.plugin!r} ({b.distribution}) is not used: {' '.join(b.reason.split())}" for b in self.broken
        ]
        for plugin in self.seconds:
            if words := self.slow(plugin):
                found.append(f"plugin {plugin!r} ({self._distribution(plugin)}) is {words}: every command waits for it")
        return found

    # -- how it is found out

    @functools.cached_property
    def _manager(self) -> pluggy.PluginManager:
        manager = pluggy.PluginManager("tunemark")
        manager.add_hookspecs(hooks)
        self._facts: list[PluginFacts] = []
        self._offers: list[Offer] = []
        found = self._entry_points
        if found is None:
            found = importlib.metadata.entry_points(group=GROUP)
        for point in sorted(set(found), key=lambda p: (p.name, p.value)):
            distribution = point.dist.name if point.dist else "unknown"
            try:
                with self._timed(point.name, "import"), redirect_stdout(sys.stderr):  # standard output is the result's
                    plugin = point.load()
                interface = _interface(plugin)
                self._register(manager, point.name, plugin)
            # A stranger's module is on the other side: whatever it raises is its own failure, not the harness's.
            except (Exception, SystemExit) as error:
                self.broken.append(
                    Broken(plugin=point.name, distribution=distribution, reason=f"{type(error).__name__}: {error}")
                )
                continue
            version = point.dist.version if point.dist else "unknown"
            self._facts.append(
                PluginFacts(
                    name=point.name,
                    module=point.value,
                    distribution=distribution,
                    version=version,
                    interface=interface,
                )
            )
        return manager

    @staticmethod
    def _register(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
        if manager.has_plugin(name):
            raise PluginError(what=f"a plugin named {name!r} is registered already")
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
            raise PluginError(what="it implements no hook", next="mark its functions with tunemark.plugin.hookimpl")

    @functools.cached_property
    def _answers(self) -> dict[str, dict[str, Any]]:
        return {}

    @functools.cached_property
    def _taken(self) -> dict[tuple[str, str], list[str]]:
        return {}

    def _named(self, hook: str, kind: type[T]) -> dict[str, T]:
        if hook not in self._answers:
            self._answers[hook] = self._ask(hook, kind)
        return self._answers[hook]

    def _ask(self, hook: str, kind: type[T]) -> dict[str, T]:
        # What is there without any plugin.
        named: dict[str, T] = {each.name: each for each in (LOCAL,) if isinstance(each, kind)}
        owner = dict.fromkeys(named, "tunemark")
        for plugin, function in self.observers(hook):
            try:
                with self._timed(plugin, hook), redirect_stdout(sys.stderr):  # a generator's body runs here
                    given = function()
                    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
                        raise TypeError(f"{hook} returned {given!r}, not a sequence of {kind.__name__}")
                    answers = list(given)
                wrong = [a for a in answers if not isinstance(a, kind)]
                if wrong:
                    raise TypeError(f"{hook} returned {wrong[0]!r}, which is no {kind.__name__}")
            # A stranger's function is on the other side.
            except (Exception, SystemExit) as error:
                reason = f"{hook}: {type(error).__name__}: {error}"
                self.broken.append(Broken(plugin=plugin, distribution=self._distribution(plugin), reason=reason))
                continue
            for name, answer in [(name, each) for each in answers for name in _names(each)]:
                self._offers.append(Offer(plugin=plugin, hook=hook, name=name, answer=answer, is_taken=False))
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
        began_s = time.perf_counter()
        words = f"still waiting for plugin {plugin!r}: {what} has taken {_HANGS_S:g} s"
        hangs = threading.Timer(_HANGS_S, print, [words], {"file": sys.stderr, "flush": True})
        hangs.daemon = True
        hangs.start()
        try:
            yield
        finally:
            hangs.cancel()
            self.seconds.setdefault(plugin, {})[what] = time.perf_counter() - began_s

    def _distribution(self, plugin: str) -> str:
        known = [f.distribution for f in self._facts if f.name == plugin]
        return next(iter(known + [b.distribution for b in self.broken if b.plugin == plugin]), "unknown")

    def _chosen(self, kind: str, name: str, named: dict[str, T]) -> T:
        if name in named:
            return named[name]
        for (hook, taken), plugins in self._taken.items():
            if taken == name and hook.startswith(f"tunemark_{kind[:5]}"):
                raise PluginError(
                    what=f"the {kind} {name!r} is claimed by {len(plugins)} plugins: {', '.join(plugins)}",
                    why="a name must mean one thing; none of them is used",
                    next="uninstall all but one: "
                    + ", ".join(f"{p} is from {self._distribution(p)!r}" for p in plugins),
                )
        failed = "; ".join(f"{b.plugin} ({b.distribution}) failed: {b.reason}" for b in self.broken)
        raise UnknownName(
            what=f"no {kind} named {name!r}",
            why=f"it may be in a plugin that could not be used: {failed}" if failed else "",
            next=did_you_mean(name, named) + ". Plugins bring more: see `tunemark list plugins`",
        )


def _interface(plugin: object) -> str:
    """What a plugin says that it was written for, by `TUNEMARK_INTERFACE`; refused where that is newer than ours."""
    needed = getattr(plugin, "TUNEMARK_INTERFACE", "")
    if not needed:
        return ""
    parts = str(needed).split(".")
    if not isinstance(needed, str) or len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise PluginError(what=f"TUNEMARK_INTERFACE is {needed!r}", next='it is text of two numbers, as "1.0"')
    ours = tuple(map(int, INTERFACE.split(".")))
    theirs = tuple(map(int, parts))
    if theirs[0] != ours[0] or theirs > ours:
        raise PluginError(
            what=f"it needs plugin interface {needed}, and this tunemark has {INTERFACE}",
            next="upgrade tunemark" if theirs > ours else "ask for a version of the plugin for this tunemark",
        )
    return needed


_KINDS: dict[str, type[Any]] = {
    "tunemark_devices": Device,
    "tunemark_models": Model,
    "tunemark_model_sources": ModelSource,
    "tunemark_datasets": Dataset,
    "tunemark_strategies": Strategy,
    "tunemark_launchers": Launcher,
    "tunemark_formats": Format,
    "tunemark_importers": Importer,
    "tunemark_monitors": Monitor,
}


def _names(answer: Any) -> list[str]:
    """What an answer is looked up by."""
    devices = answer.devices if isinstance(answer, Strategy) else ()
    return [_on(answer.name, device) for device in devices] or [str(answer.name)]


def _on(strategy: str, device: str) -> str:
    return f"{strategy} on {device}"


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what it prints on standard error: standard output is the result's."""

    @functools.wraps(function)
    def apart(*args: Any, **kwargs: Any) -> Any:
        with redirect_stdout(sys.stderr):
            return function(*args, **kwargs)

    return apart


def load(name: str) -> Any:
    """The object that "package.module:Name" names. For `loader` and `render` fields, in the parent."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            what=f"cannot load {name!r}", why=str(error), next="the plugin that names it is broken: report it there"
        ) from error
