"""Execute prepared runs: launch the attempts that are missing, and yield each run's result as soon as it is complete.

Attempts go in rounds (every run once, then every run again), so that a drift of the machine spreads over all runs
instead of falling on the last. A run whose attempt fails is not repeated; the sweep goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

from tunemark.launch import POLL_S
from tunemark.results import Result
from tunemark.runner.attempt import EndedAttempt, PendingAttempt, RunningAttempt, lock_devices, start_attempt
from tunemark.runner.observer import run_title
from tunemark.runner.preparation import PreparedRun
from tunemark.runner.remaining_attempts import first_remaining, next_remaining, refresh_pending
from tunemark.runner.session import Session


def run_sweep(ready: Sequence[PreparedRun], session: Session) -> Iterator[Result]:
    """Launch the attempts that are missing and yield every run's result when its last attempt has ended."""
    # A run's next attempt goes to the end of the queue, which makes rounds, with one job at a time and with several.
    queue: deque[PendingAttempt] = deque()
    for each in ready:
        first = first_remaining(each, session)
        if first is not None:
            queue.append(first)
            continue
        session.observer.message(
            f"{run_title(each.plan)}: finished before with the same code, data and interpreter (--redo repeats it)"
        )
        yield session.judge(each.plan, fingerprint=each.fingerprint)
    active: list[RunningAttempt] = []
    try:
        while queue or active:
            over: list[RunningAttempt | EndedAttempt] = []
            while queue and len(active) + len(over) < session.launching.max_jobs:
                pending = queue.popleft()
                lock = lock_devices(pending.ready.plan, session)
                try:
                    fresh = refresh_pending(pending, session)
                    if fresh is None:
                        lock.close()
                        yield session.judge(pending.ready.plan, fingerprint=pending.ready.fingerprint)
                        continue
                    session.observer.attempt(fresh.ready, fresh.number, fresh.of)
                    started = start_attempt(fresh, session, lock)
                except BaseException:
                    lock.close()
                    raise
                if isinstance(started, EndedAttempt):
                    over.append(started)
                else:
                    active.append(started)
            over += [attempt for attempt in active if attempt.look()]
            for attempt in over:
                if isinstance(attempt, RunningAttempt):
                    active.remove(attempt)
                ended = attempt.end() if isinstance(attempt, RunningAttempt) else attempt
                session.observer.ended(ended.pending.ready, ended.end)
                following = next_remaining(ended.pending, ended.end)
                if following is not None:
                    queue.append(following)
                else:
                    yield session.judge(ended.pending.ready.plan, series=ended.pending.series)
            if not over:
                time.sleep(POLL_S)
    finally:
        for attempt in active:
            attempt.interrupt()
        for attempt in active:
            attempt.end()
