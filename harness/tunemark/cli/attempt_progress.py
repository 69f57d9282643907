"""How far a running attempt is: its phase, its step, its rate so far with its interval, and the time left.

The rate is provisional; the result is estimated from the records afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from tunemark_worker.steady_state import find_warmup_end, window_work, within_run_interval

_BARS = "▁▂▃▄▅▆▇█"


class AttemptProgress:
    """Reads the records of one attempt. title: what runs. steps, warmup, budget_s: its limits, None for none."""

    def __init__(self, title: str, *, steps: int | None, warmup: int | None, budget_s: float | None) -> None:
        self.title = title
        self.phase = "start"
        self._steps, self._warmup, self._budget_s = steps, warmup, budget_s
        self._edges: list[tuple[float, int]] = []
        self._content_tokens: list[int] = []
        self._slots: list[int] = []
        self._batching = ""
        self._warmup_end: int | None = warmup

    def observe(self, record: Mapping[str, Any]) -> bool:
        """Take in one record, and return whether its phase is a new one. Records of ranks other than 0 are ignored."""
        if record["rank"] != 0:
            return False
        before, kind = self.phase, record["kind"]
        if kind == "start":
            # Restarted processes do not share a clock with the earlier ones.
            self._edges, self._content_tokens, self._slots, self._warmup_end = [], [], [], self._warmup
        elif kind == "phase":
            self.phase = str(record["name"])
        elif kind == "step":
            self._content_tokens.append(int(record["content"]))
            # Widths are recorded where steps differ in slots.
            self._batching = "bucket" if "widths" in record else ""
            self._slots.append(int(record["slots"]) if self._batching else 0)
        elif kind == "edge":
            self._edges.append((float(record["instant_s"]), int(record["steps"])))
            if self._warmup_end is None:
                self._warmup_end = find_warmup_end(self._seconds_of_work())
            warm = self._warmup_end is not None and len(self._edges) > self._warmup_end + 1
            self.phase = "steady" if warm else "warm-up"
        return self.phase != before

    @property
    def step(self) -> int | None:
        """Optimizer steps up to the last window's edge; None before the first window has ended."""
        return self._edges[-1][1] if len(self._edges) > 1 else None

    def words(self) -> str:
        """All of it in one line, without the title."""
        if self.step is None:
            return self.phase
        return ", ".join([self.phase, f"step {self.step}", *self.rate_words(), *self.time_left()])

    def rate_words(self) -> list[str]:
        """The rate in content tokens/s after the warm-up, with its interval if there is one; empty if unknown."""
        rates, tokens, seconds = self._windows()
        if not rates:
            return []
        rate = within_run_interval(seconds, tokens)
        if rate.low is None or rate.high is None:
            return [f"{rate.value:,.0f} tokens/s"]
        return [f"{rate.value:,.0f} ± {50 * (rate.high - rate.low) / rate.value:.1f} % tokens/s"]

    def sparkline(self, width: int) -> str:
        """The rates of the last windows, at most `width` characters from the lowest of them (▁) to the highest (█)."""
        rates = self._windows()[0][-width:] if width > 0 else []
        if len(rates) < 2:
            return ""
        low, high = min(rates), max(rates)
        scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(_BARS[round((rate - low) * scale)] for rate in rates)

    def time_left(self) -> list[str]:
        """The seconds until the attempt ends at the latest; empty if it has no limit, or not enough is known yet."""
        if self.step is None:
            return []
        spent = self._edges[-1][0] - self._edges[0][0]
        left = math.inf if self._budget_s is None else self._budget_s - spent
        if self._steps is not None and self.step > 0:
            goal = self._steps + (self._warmup_end if self._warmup_end is not None else len(self._edges))
            left = min(left, (goal - self.step) * spent / self.step)
        return [f"at most {max(0.0, left):.0f} s left"] if math.isfinite(left) else []

    def _seconds_of_work(self) -> list[float]:
        """Seconds of each window for each unit of its work, as the worker counts it."""
        pairs = list(itertools.pairwise(self._edges))
        slots = [sum(self._slots[a[1] : b[1]]) for a, b in pairs] if self._batching == "bucket" else []
        work = window_work(self._batching, [max(1, b[1] - a[1]) for a, b in pairs], slots)
        return [(b[0] - a[0]) / n for (a, b), n in zip(pairs, work, strict=True)]

    def _windows(self) -> tuple[list[float], list[float], list[float]]:
        """The rate, the content tokens and the seconds of each window after the warm-up."""
        pairs = list(itertools.pairwise(self._edges[self._warmup_end or 0 :]))
        tokens = [float(sum(self._content_tokens[a[1] : b[1]])) for a, b in pairs]
        seconds = [b[0] - a[0] for a, b in pairs]
        return [t / s for t, s in zip(tokens, seconds, strict=True) if s > 0], tokens, seconds
