"""The device `moai` as the parent sees it: what the status tool of this machine, or a saved output of it, shows.

Choosing a size and running on it are not here yet; both say so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager

from tunemark.errors import TunemarkError
from tunemark.plugin.descriptors import Accelerator, Launch, Strategy, ToolReading
from tunemark.plugin.hooks import hookimpl
from tunemark.plugin.protocols import Device

_TOOLS = ("moreh-smi", "ap-smi")
_PATIENCE_S = 20


class Moai:
    """The accelerators that Moreh's MoAI platform offers to this machine. A size is a flavor."""

    name = "moai"
    runtime = "tunemark_moai.runtime:Moai"

    def __init__(self, path: str | None = None) -> None:
        """path: where the tools are looked for, None is PATH."""
        self._path = path

    def accelerators(self) -> Sequence[Accelerator]:
        """The flavors that accelerators of this machine have now; none where no status tool is installed."""
        reading = self._status()
        if reading is None:
            return []
        sizes: dict[str, Accelerator] = {}
        for device in reading.devices:
            if device.flavor is not None and device.flavor not in sizes:
                mib = device.memory_total_mib
                sizes[device.flavor] = Accelerator(
                    name=device.flavor,
                    chip=device.name or "unknown",
                    chips=None,
                    memory_bytes=None if mib is None else mib << 20,
                )
        return sorted(sizes.values(), key=lambda size: size.memory_bytes or 0)

    def accelerator(self, size: str) -> Accelerator | None:
        if not any(shutil.which(tool, path=self._path) for tool in _TOOLS):
            raise TunemarkError(
                what="this machine has no MoAI accelerator",
                why=f"none of {', '.join(_TOOLS)} is on PATH",
                next="run it in the MoAI environment; `tunemark list devices` shows what is here",
            )
        return next((each for each in self.accelerators() if each.name.casefold() == size.casefold()), None)

    def default_size(self) -> str:
        reading = self._status()
        assert reading
        default = next((d for d in reading.devices if d.default and d.flavor), None)
        return str((default or next(d for d in reading.devices if d.flavor)).flavor)

    def occupy(self, accelerator: Accelerator) -> AbstractContextManager[None]:
        raise _not_yet()

    def launch(self, accelerator: Accelerator, strategy: Strategy) -> Launch:
        raise _not_yet()

    def read_output(self, text: str) -> ToolReading:
        """Any table of `moreh-smi` or `ap-smi`."""
        # The readers' patterns take 80 ms to prepare, which every command would wait for.
        from tunemark_moai.saved import read_devices

        return read_devices(text)

    def _status(self) -> ToolReading | None:
        """What the first tool shows that is installed; None where there is none."""
        for tool in _TOOLS:
            found = shutil.which(tool, path=self._path)
            if found:
                return self.read_output(_printed(found))
        return None


@hookimpl
def tunemark_devices() -> Sequence[Device]:
    return [Moai()]


def _printed(tool: str) -> str:
    try:
        done = subprocess.run([tool], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TunemarkError(
            what=f"{tool} does not answer", why=str(error), next=f"call `{tool}` yourself and mend what it says"
        ) from error
    # The exit codes of the tools are documented nowhere: what was printed decides.
    return b"\n".join([done.stdout, done.stderr]).decode(errors="replace")


def _not_yet() -> TunemarkError:
    return TunemarkError(
        what="tunemark cannot run on MoAI accelerators yet, it only shows them",
        next="`tunemark list devices --backend moai`",
    )
