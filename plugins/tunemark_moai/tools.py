"""Run the platform's tools with a time limit on every wait. Their exit codes are not documented, so only their output
counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass

from tunemark.errors import TunemarkError
from tunemark_moai.switch_model import FlavorMenu, SwitchSession, read_session
from tunemark_moai.terminal_text import UnreadableOutput
from tunemark_worker.linux_proc import send_group_signal

# Seconds. No document says how long a tool may take; no published output took 20.
TIMEOUT_S = 20.0
TIMEOUT_VARIABLE = "TUNEMARK_MOAI_PATIENCE_S"
_PROMPT = r"Selection\s*\([^)]*\)\s*:"


class ToolFailed(TunemarkError):  # noqa: N818 - it is what happened, as in tunemark.errors
    """A tool of the platform could not be run, or did not do its task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MoaiTools:
    """The tools on a machine. path: where to look for them; None is PATH. patience_s: time limit of each wait."""

    path: str | None = None
    patience_s: float = TIMEOUT_S

    @classmethod
    def of_environment(cls) -> MoaiTools:
        """The tools on PATH, with the time limit from the environment."""
        given = os.environ.get(TIMEOUT_VARIABLE)
        try:
            return cls(patience_s=TIMEOUT_S if given is None else float(given))
        except ValueError:
            raise TunemarkError(
                what=f"{TIMEOUT_VARIABLE} cannot be {given!r}", why="it is a number of seconds", next="unset it"
            ) from None

    def find(self, tool: str) -> str | None:
        return shutil.which(tool, path=self.path)

    def printed(self, tool: str, *arguments: str) -> str:
        """Run a tool; return all that it prints, on both streams."""
        words = " ".join([tool, *arguments])
        found = self.find(tool)
        if found is None:
            raise ToolFailed(what=f"`{words}` cannot be called", why=f"{tool} is not on PATH")
        try:
            job = subprocess.Popen(
                [found, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolFailed(what=f"`{words}` cannot be called", why=str(error)) from error
        try:
            output, _ = job.communicate(timeout=self.patience_s)
        except subprocess.TimeoutExpired as error:
            raise ToolFailed(
                what=f"`{words}` does not answer",
                why=f"it had not ended after {self.patience_s:g} s",
                next=f"run it by hand; {TIMEOUT_VARIABLE} sets a longer limit",
            ) from error
        finally:
            # A tool that hangs may have child processes, which would keep the pipe open.
            send_group_signal(job.pid, signal.SIGKILL)
            job.wait()
            assert job.stdout is not None
            job.stdout.close()
        return output.decode(errors="replace")

    def menu(self) -> SwitchSession:
        """The menu of `moreh-switch-model`; nothing is selected."""
        return self._converse(None)

    def select(self, flavor: str) -> SwitchSession:
        """Select a flavor by its name in the menu that the tool prints. Only `moreh-smi` shows whether it took effect.
        `ToolFailed` lists the menu where it has no such flavor."""
        return self._converse(flavor)

    def _converse(self, flavor: str | None) -> SwitchSession:
        # It takes 40 ms to import, and most commands never switch.
        import pexpect

        tool = "moreh-switch-model"
        found = self.find(tool)
        if found is None:
            raise ToolFailed(what=f"`{tool}` cannot be called", why="it is not on PATH")
        try:
            # Wide enough that no reply is wrapped.
            child = pexpect.spawn(
                found,
                timeout=self.patience_s,
                dimensions=(50, 400),
                echo=False,
                encoding="utf-8",
                codec_errors="replace",
            )
        except pexpect.ExceptionPexpect as error:
            raise ToolFailed(what=f"`{tool}` cannot be called", why=str(error)) from error
        output_text = ""
        try:
            output_text += _read_to_prompt(child)
            session = _parse_output(output_text)
            if flavor is not None:
                child.sendline(str(_find_index(session, flavor)))
                reply = _read_to_prompt(child)
                # Appended unchanged: the next menu follows the prompt of the first.
                output_text += reply
                session = _parse_output(output_text)
            if child.isalive():
                child.sendline("q")
                with contextlib.suppress(pexpect.EOF, pexpect.TIMEOUT, OSError):
                    child.expect(pexpect.EOF)
            return session
        except pexpect.TIMEOUT as error:
            raise ToolFailed(
                what=f"`{tool}` does not answer",
                why=f"after {self.patience_s:g} s its last line was: {_last_line(output_text + (child.before or ''))}",
                next=f"run it by hand; {TIMEOUT_VARIABLE} sets a longer limit",
            ) from error
        except OSError as error:
            raise ToolFailed(what=f"`{tool}` ended unexpectedly", why=str(error), next="run it by hand") from error
        finally:
            child.close(force=True)


def _read_to_prompt(child: object) -> str:
    """The output up to and including the next prompt, or to the end where there is none."""
    import pexpect

    assert isinstance(child, pexpect.spawn)
    if child.expect([_PROMPT, pexpect.EOF]) == 0:
        return f"{child.before}{child.after}\n"
    return str(child.before)


def _parse_output(output_text: str) -> SwitchSession:
    try:
        session = read_session(output_text)
    except UnreadableOutput as error:
        raise ToolFailed(
            what="the output of `moreh-switch-model` is not understood",
            why=f"{error.what}; {error.why}",
            next="nothing more was typed into it; run it by hand",
        ) from error
    if session.in_use is not None:
        raise ToolFailed(
            what=f"the {session.in_use} is in use, so its flavor cannot be changed",
            why="`moreh-switch-model` says so",
            next="wait until the process that `moreh-smi` shows has ended",
        )
    return session


def _find_index(session: SwitchSession, flavor: str) -> int:
    if not session.menus:
        raise ToolFailed(
            what="`moreh-switch-model` printed no menu",
            why="it printed a prompt alone, or ended before it",
            next="run it by hand",
        )
    menu: FlavorMenu = session.menus[-1]
    index = menu.index_of(flavor)
    if index is None:
        names = ", ".join(each.flavor for each in menu.flavors)
        raise ToolFailed(what=f"the menu has no flavor {flavor!r}, or several", why=f"it offers: {names}")
    return index


def _last_line(output_text: str) -> str:
    lines = [line.strip() for line in output_text.splitlines() if line.strip()]
    return repr(lines[-1][:160]) if lines else "nothing"
