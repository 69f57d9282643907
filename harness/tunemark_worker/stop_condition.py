"""When a run stops, and how long its next window is: by steps, budget, or the interval of the rate so far."""

from __future__ import annotations

from typing import List, Optional

from tunemark_worker import steady_state
from tunemark_worker.contract import Assignment

# Timed windows before the confidence interval is first computed.
FIRST_INTERVAL_WINDOWS = 12
# Steps beyond the requested ones that a run may take to become steady, or as many as were requested if that is more.
UNSTEADY_STEPS = 32
# Reasons to stop. Rank 0 broadcasts the index between windows; 0 is to go on.
STOP_REASONS = ("", "steps", "target-interval", "budget", "epochs", "interrupted")


class WindowPlanner:
    """Decides from the windows so far how long the next one is, and when to stop."""

    def __init__(self, assignment: Assignment, is_synchronous: bool) -> None:
        self._a, self._is_synchronous = assignment, is_synchronous
        self._steps: List[int] = []
        self._seconds: List[float] = []
        self._tokens: List[int] = []
        self._slots: List[int] = []
        self._warmup_windows: Optional[int] = None
        self._next_warmup_check, self._next_interval_check = 1, FIRST_INTERVAL_WINDOWS

    def add(self, steps: int, seconds: float, tokens: int, slots: int = 0) -> None:
        """A window that has ended. tokens: content. slots: needed where steps have different numbers of them."""
        self._steps.append(steps)
        self._seconds.append(seconds)
        self._tokens.append(tokens)
        self._slots.append(slots)

    def reason(self, done: int, elapsed_s: float) -> str:
        """The reason to stop now; empty to go on."""
        if self._a.budget_s is not None and elapsed_s >= self._a.budget_s:
            return "budget"
        warm = self._find_warmup()
        if warm is None:
            # A run that never becomes steady must end too: then the requested steps are its second half.
            if self._a.steps is not None and done >= self._a.steps + max(self._a.steps, UNSTEADY_STEPS):
                return "steps"
            return ""
        if self._a.steps is not None and done - sum(self._steps[:warm]) >= self._a.steps:
            return "steps"
        timed = len(self._steps) - warm
        if self._a.target_interval > 0 and timed >= self._next_interval_check:
            # Rare checks are cheap, and avoid stopping at an interval that is narrow by chance.
            self._next_interval_check = timed + max(1, timed // 8)
            interval = steady_state.within_run_interval(self._seconds[warm:], self._tokens[warm:])
            if interval.low is None or interval.high is None:
                return ""
            if (interval.high - interval.low) / 2 < self._a.target_interval * interval.value:
                return "target-interval"
        return ""

    def length(self, done: int) -> int:
        """Number of steps of the next window."""
        if self._is_synchronous or not self._seconds:
            return 1
        length = int(self._a.window_s * self._steps[-1] / max(self._seconds[-1], 1e-9)) + 1
        if self._a.steps is not None:
            length = min(length, max(1, self._a.steps // 8))
            if self._a.warmup is not None:
                left = self._a.warmup - done if done < self._a.warmup else self._a.warmup + self._a.steps - done
                length = min(length, left)
        return max(1, length)

    def _find_warmup(self) -> Optional[int]:
        """Number of warm-up windows; None until it is known."""
        if self._a.warmup is None:
            # Once found it stays. Checks become rarer, because their cost grows with the number of windows.
            if self._warmup_windows is None and len(self._steps) >= self._next_warmup_check:
                self._next_warmup_check = len(self._steps) + max(1, len(self._steps) // 16)
                work = steady_state.window_work(self._a.batching, self._steps, self._slots)
                self._warmup_windows = steady_state.find_warmup_end([s / n for s, n in zip(self._seconds, work)])
        elif self._warmup_windows is None:
            done = 0
            for window, steps in enumerate([0, *self._steps]):
                done += steps
                if done >= self._a.warmup:
                    self._warmup_windows = window
                    break
        return self._warmup_windows
