"""The progress of a sweep: one block on a terminal, whatever its width; lines elsewhere."""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pexpect
import pyte
import pytest

from tunemark.cli.attempt_progress import AttemptProgress
from tunemark.cli.progress_display import make_progress_display

# Two attempts of two runs, on the process's own terminal.
_PROGRAM = """
import sys, time
from tunemark.cli.attempt_progress import AttemptProgress
from tunemark.cli.progress_display import make_progress_display

def row(kind, at, **fields):
    return {"kind": kind, "rank": 0, "instant_s": at, **fields}

with make_progress_display(["a", "b"]) as display:
    for run in ("a", "b"):
        title = f"mistral-tiny-{run} cpu:1 none fp32 pack 2x512, attempt 1 of 1"
        display.start_attempt(run, AttemptProgress(title, steps=None, warmup=0, budget_s=90.0), number=1, of=1)
        display.observe(run, row("start", 0.0))
        for edge in range(30):
            display.observe(run, row("step", edge, content=1000))
            display.observe(run, row("edge", float(edge) + edge % 3 / 10, steps=edge + 1))
            time.sleep(0.03)
        display.message(f"a message of run {run}")
        print("a line that a plugin printed", file=sys.stderr)
        if run == "b":
            print("ready", flush=True)
            sys.stdin.readline()
        display.end_attempt(run, "ok, ended by budget")
print("the results")
"""


def _row(kind: str, at: float, **fields: Any) -> Mapping[str, Any]:
    return {"kind": kind, "rank": 0, "instant_s": at, **fields}


def _observe(progress: AttemptProgress, edges: int) -> None:
    for edge in range(edges):
        progress.observe(_row("step", edge, content=1000))
        progress.observe(_row("edge", edge + edge % 2 / 10, steps=edge + 1))


def test_progress_says_phase_step_rate_and_time_left() -> None:
    progress = AttemptProgress("a run", steps=None, warmup=2, budget_s=60.0)
    assert progress.observe(_row("phase", 0.0, name="model"))
    assert progress.words() == "model"
    _observe(progress, 9)
    phase, step, rate, left = progress.words().split(", ")
    assert (phase, step, left) == ("steady", "step 9", "at most 52 s left")
    assert rate.endswith(" % tokens/s")
    assert rate.startswith("1,0")
    assert set(progress.sparkline(20)) == {"▁", "█"}


def test_a_restart_forgets_the_earlier_windows() -> None:
    progress = AttemptProgress("a run", steps=None, warmup=0, budget_s=None)
    _observe(progress, 5)
    progress.observe(_row("start", 0.0))
    assert progress.step is None
    assert progress.sparkline(9) == ""
    assert not progress.time_left()


def _spawn(width: int) -> tuple[pexpect.spawn, pyte.Screen, pyte.Stream]:
    away = ("CI", "NO_COLOR", "COLUMNS", "LINES")
    environment = {**{k: v for k, v in os.environ.items() if k not in away}, "TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable,
        ["-c", _PROGRAM],
        dimensions=(24, width),
        env=environment,
        encoding="utf-8",
        timeout=60,
        echo=False,
    )
    screen = pyte.HistoryScreen(width, 24, history=1000)
    return child, screen, pyte.Stream(screen)


def _lines(screen: pyte.HistoryScreen) -> Iterator[str]:
    for line in screen.history.top:
        yield "".join(line[at].data for at in range(screen.columns)).rstrip()
    yield from (line.rstrip() for line in screen.display)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_shows_one_block_and_is_clean_afterwards(width: int) -> None:
    child, screen, stream = _spawn(width)
    seen = ""
    while not all(words in seen.rpartition("ready")[2] for words in ("run 2 of 2", "steady")) or "ready" not in seen:
        seen += child.read_nonblocking(10_000, 60)
    stream.feed(seen)
    during = list(_lines(screen))
    child.sendline("")
    stream.feed(child.read())
    child.close()
    assert child.exitstatus == 0
    after = [line for line in _lines(screen) if line]
    # The block: the sweep, the attempt, its phase and rate; never a line of an earlier drawing beside it.
    assert sum("run 2 of 2" in line for line in during) == 1
    assert sum("steady" in line for line in during) == 1
    assert any("attempt 1 of 1" in line and line.startswith(tuple("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")) for line in during)
    # What stays, in its order and once; a terminal wraps what is longer than its lines.
    text = "".join(after).replace(" ", "")
    kept = ["a message of run {}", "mistral-tiny-{} cpu:1 none fp32 pack 2x512, attempt 1 of 1: ok, ended by budget"]
    at = [text.index(words.format(run).replace(" ", "")) for run in "ab" for words in kept] + [text.index("theresults")]
    assert at == sorted(at)
    assert text.count("endedbybudget") == 2
    assert not any("steady" in line or "run 2 of 2" in line for line in after)
    assert not screen.cursor.hidden


def test_without_a_terminal_lines_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with make_progress_display(["a"]) as display:
        progress = AttemptProgress("a run", steps=None, warmup=0, budget_s=None)
        display.start_attempt("a", progress, number=1, of=1)
        display.observe("a", _row("phase", 0.0, name="model"))
        for edge in range(4):
            display.observe("a", _row("step", edge, content=5))
            display.observe("a", _row("edge", float(edge), steps=edge + 1))
        display.end_attempt("a", "ok, ended by steps")
    assert stream.getvalue().split("\n") == [
        "a run: model",
        "a run: warm-up",
        "a run: steady, step 2, 5 tokens/s",
        "a run: ok, ended by steps",
        "",
    ]


def test_quiet_reports_only_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with make_progress_display(["a"], quiet=True) as display:
        for end in ("ok, ended by steps", "failed, ended by exception: no memory"):
            display.start_attempt("a", AttemptProgress("a run", steps=None, warmup=0, budget_s=None), number=1, of=2)
            display.observe("a", _row("phase", 0.0, name="model"))
            display.end_attempt("a", end)
    assert stream.getvalue() == "a run: failed, ended by exception: no memory\n"
