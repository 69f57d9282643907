"""The progress of a sweep on standard error: a block that is redrawn on a terminal, plain lines elsewhere.

The block never has more lines than the terminal, and no line wraps. Plain lines are printed when a phase changes and
every ten seconds.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tunemark.cli.attempt_progress import AttemptProgress
from tunemark.number_format import format_duration
from tunemark.visible_text import make_visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable, RenderableType
    from rich.live import Live
    from rich.text import Text

_PLAIN_EVERY_S = 10.0
_REDRAWS_PER_S = 5.0
_LINES_PER_ATTEMPT = 2


class ProgressDisplay(AbstractContextManager["ProgressDisplay"], Protocol):
    """Shows a sweep. Runs are named by their run_id; attempts of several runs may overlap."""

    def message(self, words: str) -> None:
        """Print a line that stays."""

    def start_attempt(self, run_id: str, progress: AttemptProgress, *, number: int, of: int) -> None:
        """Show an attempt from now on. number: of how many (`of`) of its run, from 1."""

    def observe(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Show one more record of the attempt of a run that is under way."""

    def end_attempt(self, run_id: str, words: str) -> None:
        """Replace the attempt by a line that stays and says how it ended."""


def make_progress_display(run_ids: Sequence[str], *, quiet: bool = False) -> ProgressDisplay:
    """The display that suits standard error. run_ids: all runs of the sweep, in their order."""
    stream = sys.stderr
    if quiet:
        return _QuietProgress(stream)
    # Every CI service sets CI.
    plain = os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") in ("dumb", "unknown")
    return _PlainProgress(stream) if plain or not stream.isatty() else _LiveProgress(run_ids)


class _PlainProgress(ProgressDisplay):
    """Prints lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._attempts: dict[str, AttemptProgress] = {}
        self._written_s: dict[str, float] = {}

    def __exit__(self, *failure: object) -> None:
        pass

    def message(self, words: str) -> None:
        with contextlib.suppress(OSError):  # where nobody can hear it, the measurement goes on all the same
            print(make_visible(words), file=self._stream, flush=True)

    def start_attempt(self, run_id: str, progress: AttemptProgress, *, number: int, of: int) -> None:
        self._attempts[run_id] = progress
        self._written_s[run_id] = time.monotonic()

    def observe(self, run_id: str, record: Mapping[str, Any]) -> None:
        progress = self._attempts[run_id]
        is_new, now = progress.observe(record), time.monotonic()
        if is_new or now - self._written_s[run_id] >= _PLAIN_EVERY_S:
            self._written_s[run_id] = now
            self.message(f"{progress.title}: {progress.words()}")

    def end_attempt(self, run_id: str, words: str) -> None:
        self.message(f"{self._attempts.pop(run_id).title}: {words}")


class _QuietProgress(_PlainProgress):
    """Prints what has to be known, and no progress."""

    def observe(self, run_id: str, record: Mapping[str, Any]) -> None:
        pass

    def end_attempt(self, run_id: str, words: str) -> None:
        progress = self._attempts.pop(run_id)
        if not words.startswith("ok"):
            self.message(f"{progress.title}: {words}")


class _LiveProgress(ProgressDisplay):
    """Redraws one block in place: the sweep, then each attempt that is under way."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        # Heavy, and only needed on a terminal.
        from rich.console import Console
        from rich.spinner import Spinner

        self._run_ids = list(dict.fromkeys(run_ids))
        self._attempts: dict[str, AttemptProgress] = {}
        self._began_s: dict[str, float] = {}
        self._durations_s: list[float] = []
        self._newest: tuple[int, int, int] = (0, 1, 1)
        self._drawn: list[Text] = []
        self._spinner = Spinner("dots")
        # Exported, these stay as they were when the terminal is resized.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._console = Console(
            file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True, _environ=environment
        )
        self._live = _make_live(self._console, self._block, self._drawn_widths)

    def __enter__(self) -> _LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._live.stop()

    def message(self, words: str) -> None:
        self._console.print(make_visible(words))

    def start_attempt(self, run_id: str, progress: AttemptProgress, *, number: int, of: int) -> None:
        at = self._run_ids.index(run_id) if run_id in self._run_ids else 0
        self._newest = max(self._newest, (at, number, of))
        self._began_s[run_id] = time.monotonic()
        self._attempts[run_id] = progress

    def observe(self, run_id: str, record: Mapping[str, Any]) -> None:
        self._attempts[run_id].observe(record)

    def end_attempt(self, run_id: str, words: str) -> None:
        self._durations_s.append(time.monotonic() - self._began_s.pop(run_id))
        self.message(f"{self._attempts.pop(run_id).title}: {words}")

    def _block(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        # The drawing thread reads what the observing thread changes.
        attempts = list(self._attempts.values())
        self._drawn = []
        if not attempts:
            return Text("")
        width, height = self._console.size
        shown = attempts[: max(1, (height - 3) // _LINES_PER_ATTEMPT)]
        frame = self._spinner.render(time.monotonic())
        lines = [self._sweep_line(width)]
        for progress in shown:
            lines.append(_one_line(f"{frame} {_fit_title(progress.title, width - 3)}", width, "bold"))
            lines.append(_one_line(f"  {self._attempt_line(progress, width - 3)}", width))
        if len(attempts) > len(shown):
            lines.append(_one_line(f"  and {len(attempts) - len(shown)} more attempts", width, "dim"))
        self._drawn = lines
        return Group(*lines)

    def _drawn_widths(self) -> list[int]:
        return [line.cell_len for line in self._drawn]

    def _sweep_line(self, width: int) -> Text:
        at, number, of = self._newest
        runs = len(self._run_ids)
        words = f"run {at + 1} of {runs}, attempt {number} of {of}"
        if self._durations_s:
            mean_s = sum(self._durations_s) / len(self._durations_s)
            left = (runs - at - 1) * of + of - number + 1
            spent_s = time.monotonic() - min(self._began_s.values(), default=time.monotonic())
            words += f", about {format_duration(max(0.0, left * mean_s - spent_s))} left"
        done = (at * of + number - 1) / max(1, runs * of)
        bar = width - len(words) - 4
        if bar >= 8:
            filled = round(done * min(bar, 30))
            words = f"{'━' * filled}{'─' * (min(bar, 30) - filled)} {words}"
        return _one_line(words, width, "cyan")

    def _attempt_line(self, progress: AttemptProgress, width: int) -> str:
        """What there is room for, the most important first: the phase and the rate, then step, time left, sparkline."""
        if progress.step is None:
            return progress.phase
        parts = [progress.phase, *progress.rate_words()]
        for more in [[f"step {progress.step}"], progress.time_left()]:
            if len(", ".join([*parts, *more])) <= width:
                parts += more
        words = ", ".join(parts)
        spark = progress.sparkline(min(24, width - len(words) - 1))
        return f"{words} {spark}" if spark else words


def _make_live(console: Console, block: Callable[[], RenderableType], drawn_widths: Callable[[], list[int]]) -> Live:
    """rich's display in place, which also takes away what a narrower terminal made of the lines drawn before.

    block: what is drawn. drawn_widths: the cells of each line as last drawn."""
    from rich.control import Control
    from rich.live import Live
    from rich.segment import ControlType

    class ResizableLive(Live):
        # The cells of each line that stands on the terminal; what is drawn next is known before it is there.
        on_screen: tuple[int, ...] = ()

        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            width = max(1, self.console.width)
            # A terminal that became narrower has wrapped each line that was longer.
            wrapped = sum(max(0, -(-cells // width) - 1) for cells in self.on_screen)
            self.on_screen = tuple(drawn_widths())
            erase = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * wrapped
            return [Control(*erase), *super().process_renderables(renderables)]

    return ResizableLive(
        console=console,
        get_renderable=block,
        refresh_per_second=_REDRAWS_PER_S,
        transient=True,
        vertical_overflow="crop",
    )


def _fit_title(title: str, width: int) -> str:
    """A title without its middle where it is too long, since its end names the attempt."""
    if len(title) <= width:
        return title
    end = title.rpartition(", ")[2]
    return f"{title[: max(0, width - len(end) - 2)]}… {end}"


def _one_line(words: str, width: int, style: str = "") -> Text:
    from rich.text import Text

    # The last column stays empty: some terminals wrap a line that fills it.
    text = Text(words, style=style, no_wrap=True, overflow="ellipsis")
    text.truncate(max(1, width - 1), overflow="ellipsis")
    return text
