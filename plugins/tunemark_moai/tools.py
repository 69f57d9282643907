"""Call the platform's tools with a limit on every wait. Their exit codes are documented nowhere: what they print
decides."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass

from tunemark.errors import TunemarkError
from tunemark_moai.switch_model import Menu, Session, read_session
from tunemark_moai.terminal import UnreadableOutput

# Seconds; nothing says how long a tool may take, and 20 were never reached in what is published.
PATIENCE_S = 20.0
PATIENCE_VARIABLE = "TUNEMARK_MOAI_PATIENCE_S"
_QUESTION = r"Selection\s*\([^)]*\)\s*:"


class ToolFailed(TunemarkError):  # noqa: N818 - it is what happened, as in tunemark.errors
    """A tool of the platform did not do what it was called for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """The tools on a machine. path: where they are looked for, None is PATH. patience_s: for each wait."""

    path: str | None = None
    patience_s: float = PATIENCE_S

    @classmethod
    def of_environment(cls) -> Tools:
        """Those on PATH, with the patience that the environment sets."""
        given = os.environ.get(PATIENCE_VARIABLE)
        try:
            return cls(patience_s=PATIENCE_S if given is None else float(given))
        except ValueError:
            raise TunemarkError(
                what=f"{PATIENCE_VARIABLE} cannot be {given!r}", why="it is a number of seconds", next="unset it"
            ) from None

    def find(self, tool: str) -> str | None:
        return shutil.which(tool, path=self.path)

    def printed(self, tool: str, *arguments: str) -> str:
        """All that a call prints, on either stream."""
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
                why=f"nothing was over after {self.patience_s:g} s",
                next=f"call it yourself; a longer wait is set by {PATIENCE_VARIABLE}",
            ) from error
        finally:
            # A tool that hangs may have started others, which would keep the pipe open.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
            assert job.stdout is not None
            job.stdout.close()
        return output.decode(errors="replace")

    def menu(self) -> Session:
        """What `moreh-switch-model` offers; nothing is selected."""
        return self._converse(None)

    def select(self, flavor: str) -> Session:
        """Select a flavor by its name through the menu that the tool prints. Whether it was done is for `moreh-smi` to
        say. A `ToolFailed` names the menu where it has no such flavor."""
        return self._converse(flavor)

    def _converse(self, flavor: str | None) -> Session:
        # 40 ms to import, and most commands never switch.
        import pexpect

        tool = "moreh-switch-model"
        found = self.find(tool)
        if found is None:
            raise ToolFailed(what=f"`{tool}` cannot be called", why="it is not on PATH")
        try:
            # Wide enough that no answer is wrapped.
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
        said = ""
        try:
            said += _heard(child)
            session = _session(said)
            if flavor is not None:
                child.sendline(str(_index(session, flavor)))
                answer = _heard(child)
                # The answer by itself: its menu follows upon the first one's question.
                said += answer
                session = _session(said)
            if child.isalive():
                child.sendline("q")
                with contextlib.suppress(pexpect.EOF, pexpect.TIMEOUT, OSError):
                    child.expect(pexpect.EOF)
            return session
        except pexpect.TIMEOUT as error:
            raise ToolFailed(
                what=f"`{tool}` does not answer",
                why=f"after {self.patience_s:g} s it had printed last: {_last(said + (child.before or ''))}",
                next=f"call it yourself; a longer wait is set by {PATIENCE_VARIABLE}",
            ) from error
        except OSError as error:
            raise ToolFailed(what=f"`{tool}` went away", why=str(error), next="call it yourself") from error
        finally:
            child.close(force=True)


def _heard(child: object) -> str:
    """What is printed up to and with the next question, or to the end where none comes."""
    import pexpect

    assert isinstance(child, pexpect.spawn)
    if child.expect([_QUESTION, pexpect.EOF]) == 0:
        return f"{child.before}{child.after}\n"
    return str(child.before)


def _session(said: str) -> Session:
    try:
        session = read_session(said)
    except UnreadableOutput as error:
        raise ToolFailed(
            what="`moreh-switch-model` printed what is not understood",
            why=f"{error.what}; {error.why}",
            next="nothing more was typed into it; call it yourself",
        ) from error
    if session.in_use is not None:
        raise ToolFailed(
            what=f"the {session.in_use} is in use, so that its flavor cannot be changed",
            why="`moreh-switch-model` says so",
            next="wait until the process that `moreh-smi` shows has ended",
        )
    return session


def _index(session: Session, flavor: str) -> int:
    if not session.menus:
        raise ToolFailed(
            what="`moreh-switch-model` printed no menu",
            why="its question stands alone, or it ended before",
            next="call it yourself",
        )
    menu: Menu = session.menus[-1]
    index = menu.index_of(flavor)
    if index is None:
        names = ", ".join(each.flavor for each in menu.flavors)
        raise ToolFailed(what=f"the menu has no flavor {flavor!r}, or more than one", why=f"it offers: {names}")
    return index


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return repr(lines[-1][:160]) if lines else "nothing"
