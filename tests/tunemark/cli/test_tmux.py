"""The live display in a real terminal: tmux at 40, 80 and 200 columns, resized while it is drawn, and Ctrl-C."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

# An attempt that lasts until a key is pressed or it is interrupted, drawn as `tunemark run` draws it.
_PROGRAM = """
import sys, time
from tunemark.cli.attempt_progress import AttemptProgress
from tunemark.cli.progress_display import make_progress_display

def row(kind, at, **fields):
    return {"kind": kind, "rank": 0, "instant_s": at, **fields}

try:
    with make_progress_display(["a"]) as display:
        title = "mistral-tiny cpu:2 none bf16-autocast pack 4x512, attempt 1 of 1"
        display.message("a message that stays, longer than a narrow terminal is wide, so that it is wrapped there")
        display.start_attempt("a", AttemptProgress(title, steps=None, warmup=0, budget_s=900.0), number=1, of=1)
        display.observe("a", row("start", 0.0))
        for edge in range(100000):
            display.observe("a", row("step", edge, content=1000))
            display.observe("a", row("edge", float(edge) + edge % 3 / 10, steps=edge + 1))
            time.sleep(0.1)
except KeyboardInterrupt:
    print("interrupted")
"""


class _Terminal:
    """A detached session of a tmux server of its own."""

    def __init__(self, folder: Path, columns: int) -> None:
        self._socket = str(folder / "socket")
        self("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "24", "env PS1='$ ' sh")

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, text: str) -> None:
        self("send-keys", text, "Enter")

    def screen(self, *, history: bool = False) -> list[str]:
        text = self("capture-pane", "-p", *(["-S", "-"] if history else []))
        return [line.rstrip() for line in text.rstrip().split("\n")]

    def wait(self, is_there: Callable[[list[str]], bool]) -> list[str]:
        until = time.monotonic() + 60
        while not is_there(found := self.screen()):
            assert time.monotonic() < until, "\n".join(found)
            time.sleep(0.1)
        return found


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Callable[[int], _Terminal]]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux on this machine")
    started = []

    def start(columns: int) -> _Terminal:
        started.append(_Terminal(tmp_path, columns))
        return started[-1]

    yield start
    for each in started:
        each("kill-server")


def _is_drawn(screen: list[str]) -> bool:
    return any("steady" in line for line in screen)


def _check_drawn_once(screen: list[str], columns: int) -> None:
    assert all(len(line) <= columns for line in screen)
    assert sum("steady" in line for line in screen) == 1, "\n".join(screen)
    assert sum("run 1 of 1" in line for line in screen) == 1, "\n".join(screen)
    assert sum("attempt 1 of 1" in line for line in screen) <= 2


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_is_drawn_twice_and_the_prompt_is_clean_after_an_interruption(
    terminals: Callable[[int], _Terminal], columns: int, tmp_path: Path
) -> None:
    terminal = terminals(columns)
    (tmp_path / "program.py").write_text(_PROGRAM)
    terminal.type(f"clear; {sys.executable} {tmp_path}/program.py")
    terminal.wait(_is_drawn)
    for width in (columns, 60, 120, columns):
        terminal("resize-window", "-x", str(width), "-y", "24")
        time.sleep(1.0)  # some redraws
        _check_drawn_once(terminal.wait(_is_drawn), width)
    terminal("send-keys", "C-c")
    screen = terminal.wait(lambda found: found[-1] == "$")
    assert screen[-2:] == ["interrupted", "$"]
    assert not any("steady" in line for line in terminal.screen(history=True))
    # The cursor is shown again, and what is typed is seen.
    assert terminal("display-message", "-p", "#{cursor_flag}").strip() == "1"
    terminal("send-keys", "echo whole", "Enter")
    assert "whole" in terminal.wait(lambda found: found[-1] == "$" and "whole" in found)
