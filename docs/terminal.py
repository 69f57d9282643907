"""Draws pictures of the terminal, on a machine that does nothing else: `python docs/terminal.py` runs a command in tmux
and writes what stands on its screen to docs/terminal-running.svg and docs/terminal-results.svg."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

_HERE = Path(__file__).parent
_COLUMNS, _LINES = 96, 24
_COMMAND = "tunemark run --sequence 128 --repeats 3"


def main() -> None:
    """Run the command and keep two screens: in the middle of it, and at its end."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/socket"

        def tmux(*words: str) -> str:
            return subprocess.run(["tmux", "-S", socket, *words], capture_output=True, text=True, check=True).stdout

        tools = Path(sys.executable).parent
        shell = f"env PS1='$ ' PATH={tools}:/usr/bin:/bin sh"
        tmux("-f", "/dev/null", "new-session", "-d", "-x", str(_COLUMNS), "-y", str(_LINES), "-c", folder, shell)
        try:
            tmux("send-keys", f"clear; {_COMMAND}", "Enter")
            signs = ("run 1 of 1, attempt 2 of 3", "steady", "±")
            running = _wait(tmux, lambda text: all(sign in text for sign in signs))
            results = _wait(tmux, lambda text: text.rstrip().endswith("\n$"))
        finally:
            tmux("kill-server")
    (_HERE / "terminal-running.svg").write_text(_draw(running), encoding="utf-8")
    (_HERE / "terminal-results.svg").write_text(_draw(results), encoding="utf-8")


def _wait(tmux: Callable[..., str], is_there: Callable[[str], bool]) -> str:
    """The screen with its colours, once it holds what is waited for."""
    until = time.monotonic() + 900
    while not is_there(tmux("capture-pane", "-p")):
        if time.monotonic() > until:
            raise TimeoutError(tmux("capture-pane", "-p"))
        time.sleep(0.2)
    return tmux("capture-pane", "-p", "-e")


def _draw(screen: str) -> str:
    """A screen as SVG, which needs no font from elsewhere."""
    lines = screen.replace("clear; ", "").rstrip().split("\n")
    console = Console(width=_COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="tunemark", unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"\s+\n", "\n", svg)


if __name__ == "__main__":
    main()
