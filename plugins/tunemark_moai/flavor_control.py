"""Select a flavor, by whichever of the platform's three ways a machine has, and restore the former one.

Up to 25.1 `moreh-switch-model` changes the flavor of the default accelerator, or `moreh-smi device --switch` makes
another accelerator that has the flavor the default; from 25.3.208 on each program names its flavor in
ACCELERATOR_PLATFORM_FLAVOR. Nothing is ever created, deleted or reset: an error tells the user where that is needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import DeviceState, ToolStatus
from tunemark_moai.device_status import read_devices
from tunemark_moai.flavor_table import DEFAULT_FLAVORS
from tunemark_moai.restore_record import (
    RECORD_NAME,
    ChangedSetting,
    RestoreRecord,
    defer_signals,
    delete_restore_record,
    read_restore_record,
    write_restore_record,
)
from tunemark_moai.tools import MoaiTools, ToolFailed

FLAVOR_VARIABLE = "ACCELERATOR_PLATFORM_FLAVOR"
DEVICE_VARIABLE = "MOREH_VISIBLE_DEVICE"


class VariableFlavorControl:
    """25.3.208 and later: `ap-smi` shows the status, an environment variable of the program selects the flavor."""

    def __init__(self, tools: MoaiTools, environment: Mapping[str, str]) -> None:
        self._tools, self._environment = tools, environment

    def sizes(self) -> list[str]:
        """The documented flavors, and the one in the environment: no tool lists them."""
        own = self._environment.get(FLAVOR_VARIABLE)
        return [*DEFAULT_FLAVORS, *([own] if own and own not in DEFAULT_FLAVORS else [])]

    def current(self) -> str:
        own = self._environment.get(FLAVOR_VARIABLE)
        if not own:
            raise TunemarkError(
                what="no size is given, and this platform has no default to query",
                why=f"{FLAVOR_VARIABLE} is not set",
                next="--size flavor-default-8, or another flavor that your site offers",
            )
        return own

    @contextlib.contextmanager
    def hold(self, flavor: str, store: Path) -> Iterator[Mapping[str, str]]:
        busy = [d for d in self._devices() if d.memory_used_fraction or d.utilization]
        if busy:
            one = busy[0]
            raise TunemarkError(
                what=f"accelerator {one.id} ({one.flavor}) is in use",
                why=f"`ap-smi` shows memory {_share(one.memory_used_fraction)}, utilization {_share(one.utilization)}",
                next="wait until it is idle: two programs on one accelerator disturb each other's measurement",
            )
        yield {FLAVOR_VARIABLE: flavor}

    def _devices(self) -> Sequence[DeviceState]:
        text = self._tools.printed("ap-smi")
        # How the tool shows an idle accelerator is not documented; empty output is taken as an empty table.
        return read_devices(text).devices if text.strip() else ()


class ToolFlavorControl:
    """Up to 25.1: `moreh-smi` shows the status, `moreh-switch-model` or `moreh-smi device --switch` selects."""

    def __init__(self, tools: MoaiTools) -> None:
        self._tools = tools
        self._can_select = tools.find("moreh-switch-model") is not None
        self._sizes: list[str] | None = None

    def status(self) -> ToolStatus:
        return read_devices(self._tools.printed("moreh-smi"))

    def sizes(self) -> list[str]:
        """The flavors of the accelerators, and those of the menu; a busy machine shows no menu."""
        if self._sizes is None:
            names = [d.flavor for d in self.status().devices if d.flavor]
            if self._can_select:
                # In use, or no menu: then it cannot be switched either, and the attempt will report why.
                with contextlib.suppress(ToolFailed):
                    names += [each.flavor for menu in self._tools.menu().menus[-1:] for each in menu.flavors]
            self._sizes = list({name.casefold(): name for name in names}.values())
        return self._sizes

    def current(self) -> str:
        return _require_flavor(_find_default(self.status()))

    @contextlib.contextmanager
    def hold(self, flavor: str, store: Path) -> Iterator[Mapping[str, str]]:
        former = read_restore_record(store)
        if former is not None and former.is_held:
            raise TunemarkError(
                what="another run is switching the accelerator",
                why=f"process {former.pid} changed it at {former.since}",
                next="wait until it has ended: this run would change its size while it measures",
            )
        if former is not None:
            write_restore_record(store, replace(former, pid=os.getpid(), host=socket.gethostname()))
        status = self.status()
        try:
            device = self._make_current(flavor, status, former, store)
            yield {DEVICE_VARIABLE: str(device)} if len(status.devices) > 1 else {}
        finally:
            with defer_signals():
                self._restore(store)

    def _make_current(self, flavor: str, status: ToolStatus, left: RestoreRecord | None, store: Path) -> int:
        """Make an accelerator of this flavor the default; return its id."""
        default = _find_default(status)
        if _require_flavor(default).casefold() == flavor.casefold():
            _require_idle(status, default)
            return default.id
        other = next((d for d in status.devices if d.flavor and d.flavor.casefold() == flavor.casefold()), None)
        _require_idle(status, other or default)
        if other is None and not self._can_select:
            has = ", ".join(f"{d.id}: {d.flavor or 'unknown'}" for d in status.devices)
            raise TunemarkError(
                what=f"no accelerator here has the flavor {flavor}",
                why=f"accelerators: {has}; moreh-switch-model is not installed",
                next="`moreh-smi device --add` creates one, if your token allows it: tunemark never does",
            )
        how: ChangedSetting = "default" if other is not None else "flavor"
        if left is None:
            write_restore_record(store, RestoreRecord.of_now(how, default.id, _require_flavor(default)))
        elif left.how != how:
            raise TunemarkError(
                what="an earlier run changed the accelerator in another way and did not restore it",
                why=f"at {left.since}; before, accelerator {left.device} was {left.flavor}",
                next=f"restore it by `{left.command}` and delete {store / RECORD_NAME}",
            )
        if other is not None:
            self._tools.printed("moreh-smi", "device", "--switch", str(other.id))
            after = _find_default(self.status())
            if after.id != other.id:
                raise TunemarkError(
                    what=f"accelerator {other.id} did not become the default one",
                    why=f"`moreh-smi` shows {after.id} as the default after `moreh-smi device --switch {other.id}`",
                    next="run that command by hand",
                )
            return other.id
        self._select(flavor)
        return default.id

    def _select(self, flavor: str) -> None:
        session = self._tools.select(flavor)
        shown = self.current()
        if shown.casefold() != flavor.casefold():
            claim = f"{session.switched[-1].flavor}" if session.switched else "nothing"
            raise TunemarkError(
                what=f"the accelerator did not become {flavor}",
                why=f"`moreh-smi` shows {shown}; `moreh-switch-model` reported {claim}",
                next="run `moreh-switch-model` by hand",
            )

    def _restore(self, store: Path) -> None:
        former = read_restore_record(store)
        if former is None or former.is_held:
            return
        try:
            status = self.status()
            if former.how == "default":
                if _find_default(status).id != former.device:
                    self._tools.printed("moreh-smi", "device", "--switch", str(former.device))
                if _find_default(self.status()).id != former.device:
                    raise TunemarkError(what=f"accelerator {former.device} is not the default again")
            elif _require_flavor(_find_default(status)).casefold() != former.flavor.casefold():
                self._select(former.flavor)
        except TunemarkError as error:
            raise TunemarkError(
                what=f"the former flavor {former.flavor} could not be restored",
                why=str(error),
                next=f"`{former.command}`; the next run tries again",
            ) from error
        delete_restore_record(store)


def find_flavor_control(
    tools: MoaiTools, environment: Mapping[str, str]
) -> VariableFlavorControl | ToolFlavorControl | None:
    """The way that this machine has; None where it has no tool of the platform."""
    if tools.find("ap-smi"):
        return VariableFlavorControl(tools, environment)
    return ToolFlavorControl(tools) if tools.find("moreh-smi") else None


def _find_default(status: ToolStatus) -> DeviceState:
    marked = [d for d in status.devices if d.default]
    if len(marked) == 1:
        return marked[0]
    if len(status.devices) == 1:
        return status.devices[0]
    raise TunemarkError(
        what="it is unknown which accelerator is the default",
        why=f"`moreh-smi` shows {len(status.devices)} accelerators and {len(marked)} stars",
        next="`moreh-smi device --switch N` selects one",
    )


def _require_flavor(device: DeviceState) -> str:
    if device.flavor is None:
        raise TunemarkError(
            what=f"`moreh-smi` shows no flavor for accelerator {device.id}", next="it may have to be created first"
        )
    return device.flavor


def _require_idle(status: ToolStatus, device: DeviceState) -> None:
    process = next((p for p in status.processes if p.device == device.id), None)
    if process is not None:
        raise TunemarkError(
            what=f"accelerator {device.id} is in use",
            why=f"`moreh-smi` shows process {process.pid}: {process.command}",
            next="wait until it has ended; tunemark never resets an accelerator, since that kills a job",
        )
    if device.memory_used_mib:
        raise TunemarkError(
            what=f"accelerator {device.id} is in use",
            why=f"`moreh-smi` shows {device.memory_used_mib:,} MiB in use, and no process",
            next="wait until it is idle; if its process has died, `moreh-smi --reset` frees it",
        )


def _share(fraction: float | None) -> str:
    return "unknown" if fraction is None else f"{100 * fraction:g} %"
