"""The live line of a running attempt, on standard error: phase, step, rate with its interval, time left.

On a terminal one line is rewritten; elsewhere a plain line is printed when the phase changes and every ten seconds.
What it shows is a provisional reading; the result is estimated from the records afterwards.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tunemark_worker.steady import warmup_end, within_run

_PLAIN_EVERY_S = 10.0
_REDRAW_S = 0.2


class LiveLine:
    """Shows one attempt. title: what runs. steps, budget_s: where it would stop at the latest. rewrite: False where
    other attempts are shown beside it."""

    def __init__(
        self,
        title: str,
        *,
        steps: int | None,
        warmup: int | None,
        budget_s: float | None,
        stream: TextIO | None = None,
        rewrite: bool = True,
    ) -> None:
        self._title, self._steps, self._warmup, self._budget_s = title, steps, warmup, budget_s
        self._stream = stream or sys.stderr
        self._terminal = rewrite and self._stream.isatty()
        self._phase = "start"
        self._shown_s = 0.0
        self._edges: list[tuple[float, int]] = []
        self._content: list[int] = []
        self._steady: int | None = warmup

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take in one record; ranks other than 0 are silent."""
        if record["rank"] != 0:
            return
        kind = record["kind"]
        if kind == "start":
            # Processes that were started again share no clock with the former ones.
            self._edges, self._content, self._steady = [], [], self._warmup
        elif kind == "phase":
            self._phase = str(record["name"])
            self._show(always=not self._terminal)
        elif kind == "step":
            self._content.append(int(record["content"]))
        elif kind == "edge":
            self._edges.append((float(record["instant_s"]), int(record["steps"])))
            if self._steady is None:
                self._steady = warmup_end(self._seconds_per_step())
            self._phase = "warm-up" if self._steady is None or len(self._edges) <= self._steady + 1 else "steady"
            self._show()

    def close(self, words: str) -> None:
        """End the line with how the attempt ended."""
        self._write(f"{self._title}: {words}", last=True)

    def _seconds_per_step(self) -> list[float]:
        pairs = itertools.pairwise(self._edges)
        return [(b[0] - a[0]) / max(1, b[1] - a[1]) for a, b in pairs]

    def _show(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._shown_s < (_REDRAW_S if self._terminal else _PLAIN_EVERY_S):
            return
        self._shown_s = now
        words = f"{self._title}: {self._phase}"
        if len(self._edges) > 1:
            words += f", step {self._edges[-1][1]}{self._rate()}"
            left_s = self._left_s()
            words += f", at most {left_s:.0f} s left" if left_s is not None else ""
        self._write(words)

    def _rate(self) -> str:
        first = self._steady or 0
        edges = self._edges[first:]
        if len(edges) < 2:
            return ""
        pairs = list(itertools.pairwise(edges))
        tokens = [float(sum(self._content[a[1] : b[1]])) for a, b in pairs]
        rate = within_run([b[0] - a[0] for a, b in pairs], tokens)
        if rate.low is None or rate.high is None:
            return f", {rate.value:,.0f} tokens/s"
        return f", {rate.value:,.0f} ± {50 * (rate.high - rate.low) / rate.value:.1f} % tokens/s"

    def _left_s(self) -> float | None:
        """Seconds until the latest end; None where there is none, or it cannot be told yet."""
        spent = self._edges[-1][0] - self._edges[0][0]
        left = math.inf if self._budget_s is None else self._budget_s - spent
        if self._steps is not None and self._edges[-1][1] > 0:
            goal = self._steps + (self._steady if self._steady is not None else len(self._edges))
            left = min(left, (goal - self._edges[-1][1]) * spent / self._edges[-1][1])
        return max(0.0, left) if math.isfinite(left) else None

    def _write(self, words: str, *, last: bool = False) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{words}" + ("\n" if last else ""))
        else:
            self._stream.write(words + "\n")
        self._stream.flush()
