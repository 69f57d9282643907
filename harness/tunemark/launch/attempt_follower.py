"""Follow an attempt's records as they are written, until it ends or writes nothing for too long.

Success is judged by the records first and the exit code second: every rank writes its `end` before teardown. Rank 0's
records are read as they come; of the others only file sizes and the `start` and `end` records, so that many ranks cost
about as much as one. A caller may ask for every record of every rank.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tunemark.launch.attempt_end import AttemptEnd, AttemptEvidence, decide_end, format_ranks
from tunemark.launch.records import read_record
from tunemark.plugin import JobSpec, StartedJob
from tunemark_worker.contract import records_file_name, stacks_file_name
from tunemark_worker.linux_proc import count_oom_kills

# Seconds between two polls of the records: looks live to a user, and costs the host almost nothing.
POLL_S = 0.05
# Seconds between two polls of the ranks other than 0, so that many of them cost no more than a few.
_OTHERS_S = 1.0
# Seconds that a job may take for its teardown once every rank has written its `end`: gloo can hang there, and the
# measurement is already complete.
_TEARDOWN_S = 5.0
# Seconds that silent ranks have to write their stacks. Another host sees the request within one.
_STACKS_S = 4.0


class AttemptFollower:
    """Follows one running attempt. timeout_s: longest time without a new record of a rank before the job is ended.
    on_record: called with every record of rank 0, and `start` and `end` of the others or, if `every_record`, all.
    is_waiting: whether the device has the job wait, during which no records are expected."""

    def __init__(
        self,
        job: JobSpec,
        started: StartedJob,
        *,
        timeout_s: float,
        on_record: Callable[[Mapping[str, Any]], None],
        is_waiting: Callable[[], bool] = lambda: False,
        every_record: bool = False,
    ) -> None:
        self._job, self._started, self._timeout_s = job, started, timeout_s
        self._on_record, self._is_waiting, self._every_record = on_record, is_waiting, every_record
        now_s = time.monotonic()
        self._followers = [_RankFollower(job.folder, rank, now_s) for rank in range(job.processes)]
        self._others_s = now_s
        self._silent: list[int] = []
        self._kills_before = count_oom_kills()

    def look(self) -> bool:
        """Read new records; True if the job is over or has to be ended."""
        is_over = self._started.exit_code() is not None
        now_s = time.monotonic()
        leader = self._followers[0]
        self._read_records(leader, now_s)
        if is_over or leader.end is not None or now_s - self._others_s >= _OTHERS_S:
            self._poll_others(now_s, is_ending=is_over or leader.end is not None)
        if is_over:
            return True
        if self._started.is_waiting() or self._is_waiting():
            for follower in self._followers:
                follower.last_record_s = now_s
            return False
        if all(follower.end is not None for follower in self._followers):
            # The supervisor may be about to restart processes that failed.
            is_final = not self._job.max_restarts or all(_has_succeeded(follower.end) for follower in self._followers)
            silence_s = now_s - max(follower.last_record_s for follower in self._followers)
            return silence_s > (_TEARDOWN_S if is_final else self._timeout_s)
        if any(follower.garbage for follower in self._followers):
            return True
        self._silent = [f.rank for f in self._followers if f.end is None and now_s - f.last_record_s > self._timeout_s]
        if self._silent and len(self._followers) > 1:
            # Ranks that were not polled just now may have written records since, or have ended.
            self._poll_others(now_s, is_ending=True)
            self._silent = [
                f.rank for f in self._followers if f.end is None and now_s - f.last_record_s > self._timeout_s
            ]
        return bool(self._silent)

    def close(self) -> AttemptEnd:
        """End all processes of the job, read its last records, and return how it ended."""
        silence = self._request_stacks() if self._silent else ""
        is_whole = all(follower.end is not None for follower in self._followers)
        self._started.stop(self._pids(), graceful=not self._silent and not is_whole)
        self._read_records(self._followers[0], time.monotonic())
        self._poll_others(time.monotonic(), is_ending=True)
        # Processes that started in the meantime.
        self._started.stop(self._pids(), graceful=False)
        for rank in range(self._job.processes):
            path = self._job.folder / stacks_file_name(rank)
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
        garbage = next((follower.garbage for follower in self._followers if follower.garbage), "")
        if garbage:
            return AttemptEnd(status="error", reason="records", evidence=garbage)
        code = self._started.exit_code()
        platform = self._started.facts()
        return decide_end(
            AttemptEvidence(
                code=-9 if code is None else code,
                ends=[follower.end for follower in self._followers],
                silence=silence,
                kills=count_oom_kills() - self._kills_before + int(platform.get("kills", 0)),
                platform=platform,
                folder=self._job.folder,
            )
        )

    def _poll_others(self, now_s: float, *, is_ending: bool) -> None:
        self._others_s = now_s
        for follower in self._followers[1:]:
            if self._every_record:
                self._read_records(follower, now_s)
            else:
                for record in follower.glance(now_s, is_ending=is_ending):
                    self._on_record(record)

    def _read_records(self, follower: _RankFollower, now_s: float) -> None:
        for record in follower.new(now_s):
            self._on_record(record)

    def _pids(self) -> dict[int, int]:
        return {follower.rank: follower.pid for follower in self._followers if follower.pid is not None}

    def _request_stacks(self) -> str:
        """Have all ranks write their stacks, and describe which were silent and where the stacks are."""
        paths = {f.rank: self._job.folder / stacks_file_name(f.rank) for f in self._followers if f.pid is not None}
        states = self._started.stacks(self._pids())
        until_s = time.monotonic() + _STACKS_S
        while time.monotonic() < until_s and self._started.exit_code() is None:
            if all(_is_written(path) for path in paths.values()):
                break
            time.sleep(POLL_S)
        written = [path.name for path in paths.values() if _is_written(path)]
        words = "no record" if len(self._followers) == 1 else f"no record of {format_ranks(self._silent)}"
        words += f" for {self._timeout_s:.0f} s"
        shown = f"stacks of every rank are in {', '.join(written[:8])}" if written else "no rank could write its stacks"
        return "; ".join(part for part in (words, states, shown) if part)


class _RankFollower:
    """Reads one rank's growing file of records. last_record_s: when it last grew. pid, end: the pid of the `start`
    record and the `end` record, None until they are written."""

    def __init__(self, folder: Path, rank: int, now_s: float) -> None:
        self._folder, self.rank, self.last_record_s = folder, rank, now_s
        self._restarts = 0
        self._open(0)
        self.pid: int | None = None
        self.garbage = ""

    def new(self, now_s: float) -> list[Mapping[str, Any]]:
        """Read the records that were completed since the last call."""
        found = self._read_lines(now_s)
        while self._switch_if_restarted():
            found += self._read_lines(now_s)
        return found

    def glance(self, now_s: float, *, is_ending: bool) -> list[Mapping[str, Any]]:
        """Check for growth by the file's size alone; read only the `start` and, if the job is ending, the `end`, each
        once."""
        found = self._read_first_and_last(now_s, is_ending)
        while self._switch_if_restarted():
            found += self._read_first_and_last(now_s, is_ending)
        return found

    def _open(self, restarts: int) -> None:
        self._path, self._restarts = self._folder / records_file_name(self.rank, restarts), restarts
        # Bytes: size at the last check, and position read up to; and whether the first line was read.
        self._size, self._position, self._has_begun = 0, 0, False
        self.end: Mapping[str, Any] | None = None

    def _switch_if_restarted(self) -> bool:
        """Switch to the file of a restarted process, if there is one; the previous one's `end` no longer counts."""
        if not os.path.exists(self._folder / records_file_name(self.rank, self._restarts + 1)):
            return False
        self._open(self._restarts + 1)
        return True

    def _has_grown(self, now_s: float) -> bool:
        """Whether there is something to read, by a single stat."""
        try:
            size = os.stat(self._path).st_size
        except OSError:  # not there yet or, with its folder, not any more
            return False
        # Not only growth: a record that did not fit on a full disk is truncated again.
        if size != self._size:
            self._size, self.last_record_s = size, now_s
        return size > self._position

    def _read_lines(self, now_s: float) -> list[Mapping[str, Any]]:
        if not self._has_grown(now_s):
            return []
        try:
            with open(self._path, "rb") as file:
                file.seek(self._position)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        records = self._decode(whole.split(b"\n")[:-1])
        for record in records:
            self._remember(record)
        return list(records)

    def _read_first_and_last(self, now_s: float, is_ending: bool) -> list[Mapping[str, Any]]:
        if not self._has_grown(now_s) or (self._has_begun and not (is_ending and self.end is None)):
            return []
        lines = []
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            if not self._has_begun and (first := file.readline()).endswith(b"\n"):
                self._has_begun = True
                lines.append(first)
            if is_ending and self._has_begun and self.end is None:
                last = _last_line(file)
                self._position = file.tell()
                lines += [] if last in lines else [last]
        records = self._decode(lines)
        for record in records:
            self._remember(record)
        return [record for record in records if record["kind"] in ("start", "end")]

    def _decode(self, lines: Sequence[bytes]) -> list[dict[str, Any]]:
        """The records of complete lines. One that is none is left out here; the attempt is unreadable all the same."""
        found = []
        for line in lines:
            try:
                found.append(read_record(line))
            except (ValueError, RecursionError) as error:
                self.garbage = self.garbage or f"{self._path.name} has a line that is no record: {str(error)[:200]}"
        return found

    def _remember(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "start":
            self.pid = record["pid"]
        elif record["kind"] == "end":
            self.end = record


def _last_line(file: BinaryIO) -> bytes:
    """The last complete line of a file that has one; the file is then positioned after it."""
    size, length = file.seek(0, os.SEEK_END), 4096
    while True:
        begin = max(0, size - length)
        file.seek(begin)
        text = file.read(size - begin)
        end = text.rfind(b"\n") + 1
        start = text.rfind(b"\n", 0, max(0, end - 1)) + 1
        if (end and start) or begin == 0:
            file.seek(begin + end)
            return text[start:end]
        length *= 4


def _has_succeeded(end: Mapping[str, Any] | None) -> bool:
    return end is not None and end["status"] == "ok" and end["reason"] != "interrupted"


def _is_written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
