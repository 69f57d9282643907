"""The progress line of a running attempt, on standard error: phase, step, rate with its interval, time left.

On a terminal one line is rewritten; otherwise a line is printed when the phase changes and every ten seconds. The rate
is provisional; the result is estimated from the records afterwards.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tunemark_worker.steady_state import find_warmup_end, within_run_interval

_PLAIN_EVERY_S = 10.0
_REDRAW_S = 0.2


class ProgressLine:
    """Shows one attempt. title: what runs. steps, budget_s: its limits. rewrite: False if others are shown with it."""

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
        self._written_s = 0.0
        self._edges: list[tuple[float, int]] = []
        self._content_tokens: list[int] = []
        self._warmup_end: int | None = warmup

    def observe(self, record: Mapping[str, Any]) -> None:
        """Process one record; those of ranks other than 0 are ignored."""
        if record["rank"] != 0:
            return
        kind = record["kind"]
        if kind == "start":
            # Restarted processes do not share a clock with the earlier ones.
            self._edges, self._content_tokens, self._warmup_end = [], [], self._warmup
        elif kind == "phase":
            self._phase = str(record["name"])
            self._show(always=not self._terminal)
        elif kind == "step":
            self._content_tokens.append(int(record["content"]))
        elif kind == "edge":
            self._edges.append((float(record["instant_s"]), int(record["steps"])))
            if self._warmup_end is None:
                self._warmup_end = find_warmup_end(self._seconds_per_step())
            self._phase = (
                "warm-up" if self._warmup_end is None or len(self._edges) <= self._warmup_end + 1 else "steady"
            )
            self._show()

    def close(self, text: str) -> None:
        """Replace the line with how the attempt ended."""
        self._write(f"{self._title}: {text}", last=True)

    def _seconds_per_step(self) -> list[float]:
        pairs = itertools.pairwise(self._edges)
        return [(b[0] - a[0]) / max(1, b[1] - a[1]) for a, b in pairs]

    def _show(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._written_s < (_REDRAW_S if self._terminal else _PLAIN_EVERY_S):
            return
        self._written_s = now
        text = f"{self._title}: {self._phase}"
        if len(self._edges) > 1:
            text += f", step {self._edges[-1][1]}{self._rate()}"
            left_s = self._left_s()
            text += f", at most {left_s:.0f} s left" if left_s is not None else ""
        self._write(text)

    def _rate(self) -> str:
        first = self._warmup_end or 0
        edges = self._edges[first:]
        if len(edges) < 2:
            return ""
        pairs = list(itertools.pairwise(edges))
        tokens = [float(sum(self._content_tokens[a[1] : b[1]])) for a, b in pairs]
        rate = within_run_interval([b[0] - a[0] for a, b in pairs], tokens)
        if rate.low is None or rate.high is None:
            return f", {rate.value:,.0f} tokens/s"
        return f", {rate.value:,.0f} ± {50 * (rate.high - rate.low) / rate.value:.1f} % tokens/s"

    def _left_s(self) -> float | None:
        """Seconds until the attempt ends at the latest; None if it has no limit, or not enough is known yet."""
        spent = self._edges[-1][0] - self._edges[0][0]
        left = math.inf if self._budget_s is None else self._budget_s - spent
        if self._steps is not None and self._edges[-1][1] > 0:
            goal = self._steps + (self._warmup_end if self._warmup_end is not None else len(self._edges))
            left = min(left, (goal - self._edges[-1][1]) * spent / self._edges[-1][1])
        return max(0.0, left) if math.isfinite(left) else None

    def _write(self, text: str, *, last: bool = False) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{text}" + ("\n" if last else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
