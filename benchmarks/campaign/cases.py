"""What a fault of the campaign is, how it is judged, and the list of all."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemark.cli.main import main as run_command
from tunemark.exit_codes import ExitCode

# What a terminal takes for commands, or for another order of the letters; tabs and line feeds are neither.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Exit codes that say something of runs or of what the user gave; 70 is an error of ours.
_CODES = frozenset(ExitCode) - {ExitCode.INTERNAL}


class NotHere(Exception):  # noqa: N818 - the sentence reads better
    """This host does not permit the fault; the message says why."""


class NeverCame(Exception):  # noqa: N818 - likewise
    """The event waited for did not happen; the message ends with what was said until then."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a fault. seen: in a few words. problems: what should not have been; none if it ended well."""

    seen: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One injection of a fault. folder: an empty one. chance: picks ranks, steps and moments. is_brief: only the
    commands that find most are asked of a store."""

    folder: Path
    chance: random.Random
    ranks: int = 2
    silence_s: int = 40
    is_brief: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault. run: injects it once. is_cheap: takes milliseconds and starts no process; `make test` runs those.
    is_random: at a random moment, so that it is tried several times."""

    name: str
    kind: str
    what: str
    run: Callable[[Trial], Outcome]
    is_cheap: bool
    is_random: bool


CASES: dict[str, Case] = {}
Inject = Callable[[Trial], Outcome]


def add_case(name: str, kind: str, what: str, run: Inject, *, cheap: bool = False, is_random: bool = False) -> None:
    """Put a fault on the list. `name` is what --only takes."""
    assert name not in CASES, name
    CASES[name] = Case(name=name, kind=kind, what=what, run=run, is_cheap=cheap, is_random=is_random)


class TooLong(BaseException):
    """A command took longer than it may. No handler of errors catches it."""


@contextlib.contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the main thread after so many seconds."""

    def stop(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command answered. code: None if it was not done in time."""

    words: tuple[str, ...]
    code: int | None
    out: str
    err: str
    problems: tuple[str, ...] = field(default=())

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return " ".join(lines)[:160] if lines else ""


def ask(*words: str, within_s: float = 30.0, codes: Sequence[int] = ()) -> Answer:
    """Run a command in this process, and find what no command may do: fail inside, hang, or pass commands on to the
    terminal. codes: the exit codes that are expected, if not any."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    problems = []
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], contextlib.suppress(TooLong), limit_time(within_s):
        code = int(run_command(words))
    said = out.getvalue() + err.getvalue()
    name = f"`{words[0]}`"
    if code is None:
        problems.append(f"{name} took more than {within_s:.0f} s")
    elif code not in _CODES:
        problems.append(f"{name} ended with {code}: {(err.getvalue().strip().splitlines() or [''])[-2:][0]}")
    elif codes and code not in codes:
        problems.append(f"{name} ended with {int(code)} instead of {', '.join(str(int(each)) for each in codes)}")
    if "Traceback" in said and code in _CODES:
        problems.append(f"{name} showed a traceback")
    if found := CONTROL.search(said):
        problems.append(f"{name} let {found[0]!r} through to the terminal")
    return Answer(words=words, code=code, out=out.getvalue(), err=err.getvalue(), problems=tuple(problems))


def wait_until(is_so: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Wait until `is_so` returns something true, and return it; `NeverCame` if the time is up."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if found := is_so():
            return found
        time.sleep(0.02)
    raise NeverCame(f"{what} never came")


def find_processes(folder: Path) -> list[int]:
    """Ids of other processes that work in the folder, or were told of it by their environment."""
    found = []
    mark = os.fsencode(str(folder.resolve()))
    for path in Path("/proc").glob("[0-9]*"):
        if path.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if os.fsencode(os.readlink(path / "cwd")).startswith(mark) or mark in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found
