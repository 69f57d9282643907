"""Follow an attempt's records as they are written, until its end or for as long as its silence is borne.

Success is judged by the records first and the exit code second: every rank writes its `end` before teardown.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunemark.launch.ending import Ended, Remains, judge, kernel_kills, ranks_words
from tunemark.launch.local import Local
from tunemark.plugin import Job, Launching, StartedJob
from tunemark.records import read_record
from tunemark_worker.contract import records_name, stacks_name

# Seconds between two looks at the records: a person sees it as live, and 20 looks a second cost the host nothing.
POLL_S = 0.05
# Seconds between two looks at the ranks other than 0, so that many of them cost no more than a few.
_OTHERS_S = 1.0
# Seconds that a job may take for its teardown once every rank has written its end: gloo can hang there, and the
# measurement is whole already.
_TEARDOWN_S = 5.0
# Seconds that silent ranks have to write their stacks. On another host the request is heard within one.
_STACKS_S = 4.0


class Following:
    """One attempt that is under way. timeout_s: the longest silence of a rank (no new record) that is borne.
    is_waiting: whether the device lets the job wait, where it has nothing to say."""

    def __init__(
        self,
        job: Job,
        started: StartedJob,
        *,
        timeout_s: float,
        on_record: Callable[[Mapping[str, Any]], None],
        is_waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._job, self._started, self._timeout_s = job, started, timeout_s
        self._on_record, self._is_waiting = on_record, is_waiting
        now_s = time.monotonic()
        self._followers = [_Follower(job.folder, rank, now_s) for rank in range(job.processes)]
        self._others_s = now_s
        self._silent: list[int] = []
        self._kills_before = kernel_kills()

    def look(self) -> bool:
        """Take in what is new; True where the job is over, or has to be ended."""
        is_over = self._started.exit_code() is not None
        now_s = time.monotonic()
        leader, *others = self._followers
        self._read(leader, now_s)
        if is_over or leader.end is not None or now_s - self._others_s >= _OTHERS_S:
            self._others_s = now_s
            for follower in others:
                self._read(follower, now_s)
        if is_over:
            return True
        if self._started.is_waiting() or self._is_waiting():
            for follower in self._followers:
                follower.heard_s = now_s
            return False
        if all(follower.end is not None for follower in self._followers):
            # The elastic agent may be about to start processes again that did not end well.
            is_last = not self._job.max_restarts or all(_is_well(follower.end) for follower in self._followers)
            silence_s = now_s - max(follower.heard_s for follower in self._followers)
            return silence_s > (_TEARDOWN_S if is_last else self._timeout_s)
        self._silent = [f.rank for f in self._followers if f.end is None and now_s - f.heard_s > self._timeout_s]
        if self._silent and len(self._followers) > 1:
            # The ranks that were not looked at just now may have spoken since.
            for follower in others:
                self._read(follower, now_s)
            self._silent = [f.rank for f in self._followers if f.end is None and now_s - f.heard_s > self._timeout_s]
        return bool(self._silent)

    def close(self) -> Ended:
        """Leave no process of the job behind, take in its last records, and say how it ended."""
        silence = self._ask_for_stacks() if self._silent else ""
        is_whole = all(follower.end is not None for follower in self._followers)
        self._started.stop(self._pids(), graceful=not self._silent and not is_whole)
        for follower in self._followers:
            self._read(follower, time.monotonic())
        # Those that started while it was ended.
        self._started.stop(self._pids(), graceful=False)
        for rank in range(self._job.processes):
            path = self._job.folder / stacks_name(rank)
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
        code = self._started.exit_code()
        platform = self._started.facts()
        return judge(
            Remains(
                code=-9 if code is None else code,
                ends=[follower.end for follower in self._followers],
                silence=silence,
                kills=kernel_kills() - self._kills_before + int(platform.get("kills", 0)),
                platform=platform,
                folder=self._job.folder,
            )
        )

    def _read(self, follower: _Follower, now_s: float) -> None:
        for record in follower.new():
            follower.heard_s = now_s
            self._on_record(record)

    def _pids(self) -> dict[int, int]:
        return {follower.rank: follower.pid for follower in self._followers if follower.pid is not None}

    def _ask_for_stacks(self) -> str:
        """Have the ranks write what they are at, and say in words which were silent and where that stands."""
        paths = {f.rank: self._job.folder / stacks_name(f.rank) for f in self._followers if f.pid is not None}
        states = self._started.stacks(self._pids())
        until_s = time.monotonic() + _STACKS_S
        while time.monotonic() < until_s and self._started.exit_code() is None:
            if all(_is_written(path) for path in paths.values()):
                break
            time.sleep(POLL_S)
        written = [path.name for path in paths.values() if _is_written(path)]
        words = "no record" if len(self._followers) == 1 else f"no record of {ranks_words(self._silent)}"
        words += f" for {self._timeout_s:.0f} s"
        shown = f"stacks of every rank are in {', '.join(written[:8])}" if written else "no rank could write its stacks"
        return "; ".join(part for part in (words, states, shown) if part)


def run_worker(
    *,
    python: str,
    processes: int,
    environment: Mapping[str, str],
    code: Path,
    folder: Path,
    timeout_s: float,
    on_record: Callable[[Mapping[str, Any]], None],
    is_waiting: Callable[[], bool] = lambda: False,
    max_restarts: int = 0,
    launching: Launching | None = None,
) -> Ended:
    """Run one attempt to its end, on this host where no launcher is given. timeout_s: the longest silence of a rank.

    KeyboardInterrupt passes through after the workers have ended.
    """
    job = Job(
        name=folder.name,
        python=python,
        processes=processes,
        threads=1,
        environment=environment,
        code=code,
        folder=folder.absolute(),
        max_restarts=max_restarts,
    )
    started = (launching or Local({})).start(job)
    following = Following(job, started, timeout_s=timeout_s, on_record=on_record, is_waiting=is_waiting)
    try:
        while not following.look():
            time.sleep(POLL_S)
    finally:
        ended = following.close()
    return ended


class _Follower:
    """Whole new lines of one rank's growing file of records. heard_s: when the last one was read. end: its end."""

    def __init__(self, folder: Path, rank: int, now_s: float) -> None:
        self._folder, self.rank, self.heard_s = folder, rank, now_s
        self._path, self._position, self._life = folder / records_name(rank), 0, 0
        self.pid: int | None = None
        self.end: Mapping[str, Any] | None = None

    def new(self) -> list[Mapping[str, Any]]:
        found = self._lines()
        # Processes that were started again write to another file, and an end of the former ones is none.
        while os.path.exists(following := self._folder / records_name(self.rank, self._life + 1)):
            self._path, self._position, self._life, self.end = following, 0, self._life + 1, None
            found += self._lines()
        return found

    def _lines(self) -> list[Mapping[str, Any]]:
        try:
            # Most looks find nothing, and this asks for the least.
            if os.stat(self._path).st_size <= self._position:
                return []
            with open(self._path, "rb") as file:
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        records = [read_record(line) for line in whole.split(b"\n")[:-1]]
        self.pid = next((r["pid"] for r in records if r["kind"] == "start"), self.pid)
        self.end = next((r for r in records if r["kind"] == "end"), self.end)
        return list(records)


def _is_well(end: Mapping[str, Any] | None) -> bool:
    return end is not None and end["status"] == "ok" and end["reason"] != "interrupted"


def _is_written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
