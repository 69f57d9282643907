"""Decide how an attempt ended: by its records first, then by what the supervisor of its ranks and the platform report,
and by the exit code last. If one rank's failure ended the others, that rank is named."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunemark_worker.out_of_memory import ended_without_memory

AttemptStatus = Literal["ok", "oom", "error", "killed", "timeout"]

# Bytes at the end of a log that are searched.
_TAIL_BYTES = 20_000
# Free bytes below which a disk counts as full, because a record may not fit any more.
_FULL_BYTES = 16 * 1024
# Error messages of a rank whose peer is gone (gloo and NCCL, torch 2.1 to 2.13).
_PEER_GONE = re.compile(
    r"Connection (?:closed|reset) by|Broken pipe|remote process (?:exited|has)|Socket Timeout|"
    r"[Cc]onnection refused|[Cc]onnectFullMesh failed",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd:
    """How an attempt ended. evidence: what shows it (a line of stderr, an exit code, a count of OOM kills)."""

    status: AttemptStatus
    reason: str
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEvidence:
    """What an attempt leaves behind, from which its end is decided.

    code: exit code. ends: each rank's `end` record, None if it wrote none. silence: describes the timeout that the
    attempt was ended for, empty if there was none. kills: processes that the kernel's OOM killer killed meanwhile, on
    hosts that count them. platform: the launcher's `facts`, whose `asked` names hosts that a signal asked to end.
    folder: the attempt's, with its logs.
    """

    code: int
    ends: Sequence[Mapping[str, Any] | None]
    silence: str
    kills: int
    platform: Mapping[str, Any]
    folder: Path


class _RankExit(msgspec.Struct):
    """A line of the supervisor's exits.<node>.jsonl. asked: it had been told to end by then."""

    life: int
    rank: int
    pid: int
    code: int
    asked: bool


def decide_end(remains: AttemptEvidence) -> AttemptEnd:
    """Decide how an attempt ended."""
    ends, folder = remains.ends, remains.folder
    if remains.silence:
        return AttemptEnd(
            status="timeout", reason="silent", evidence=f"{remains.silence}; last words: {last_stderr_line(folder)}"
        )
    missing = [rank for rank, end in enumerate(ends) if end is None]
    if missing:
        ended = _find_outside_cause(remains, missing)
        if ended is not None:
            return ended
    failed = [end for end in ends if end is not None and end["status"] != "ok"]
    if failed:
        # An error about a lost peer is only a consequence of another rank's failure.
        end = min(
            failed, key=lambda end: (end["status"] != "oom", _PEER_GONE.search(str(end.get("error"))) is not None)
        )
        asked = remains.platform.get("asked")
        if asked and _PEER_GONE.search(str(end.get("error"))) is not None:
            # A host ended its ranks because somebody asked it to; the others lost a peer.
            return AttemptEnd(status="killed", reason="asked to end", evidence=f"{asked}; {end.get('error')}")
        status: AttemptStatus = "oom" if end["status"] == "oom" else "error"
        return AttemptEnd(
            status=status, reason=str(end["reason"]), evidence=str(end.get("error") or last_stderr_line(folder))
        )
    if not missing:
        reason = str(ends[0]["reason"]) if ends[0] else ""
        if reason == "interrupted":
            shown = "ended at a window's edge after SIGTERM"
            if asked := remains.platform.get("asked"):
                shown = f"{asked}; {shown}"
            return _platform_failure(remains.platform, shown) or AttemptEnd(
                status="killed", reason=reason, evidence=shown
            )
        return AttemptEnd(status="ok", reason=reason, evidence="every rank wrote its end record")
    code = remains.code
    if asked := remains.platform.get("asked"):
        evidence = f"{asked}; no end record of {format_ranks(missing)}"
        return AttemptEnd(status="killed", reason="asked to end", evidence=evidence)
    if code < 0 or code in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
        number = -code if code < 0 else code - 128
        return AttemptEnd(
            status="killed", reason=signal.Signals(number).name, evidence=f"no end record; exit code {code}"
        )
    return AttemptEnd(status="error", reason=f"exit code {code}", evidence=last_stderr_line(folder))


def _find_outside_cause(remains: AttemptEvidence, missing: Sequence[int]) -> AttemptEnd | None:
    """The end of an attempt of which ranks wrote no `end`, if something outside the ranks explains it; else None."""
    folder, platform = remains.folder, remains.platform
    missing_ends = "no end record" if len(remains.ends) == 1 else f"no end record of {format_ranks(missing)}"
    if ended := _platform_failure(platform, missing_ends):
        return ended
    if remains.kills > 0:
        kills = f"the kernel's OOM killer killed {remains.kills} processes of this host"
        return AttemptEnd(status="oom", reason="host memory", evidence=f"{kills}; {missing_ends}")
    if ended_without_memory(read_stderr_tail(folder)):
        evidence = f"{last_stderr_line(folder)}; {missing_ends}"
        return AttemptEnd(status="oom", reason="host memory", evidence=evidence)
    for ended_rank in _read_rank_exits(folder):
        if ended_rank.code < 0 and not ended_rank.asked and ended_rank.rank in missing:
            name = signal.Signals(-ended_rank.code).name
            evidence = f"rank {ended_rank.rank} (process {ended_rank.pid}) was ended by {name}; {missing_ends}"
            return AttemptEnd(status="killed", reason=name, evidence=evidence)
    left = free_disk_bytes(folder)
    if left is not None and left < _FULL_BYTES:
        evidence = f"{left} bytes are left on the disk of {folder}; {missing_ends}"
        return AttemptEnd(status="error", reason="disk full", evidence=evidence)
    return None


def _read_rank_exits(folder: Path) -> list[_RankExit]:
    """The ranks of the last life that did not end with 0, in the order in which each host saw them end."""
    found = []
    for path in sorted(folder.glob("exits.*.jsonl")):
        # A full disk may have cut the last line.
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=_RankExit))
    last = max((each.life for each in found), default=0)
    return [each for each in found if each.life == last]


def _platform_failure(platform: Mapping[str, Any], evidence: str) -> AttemptEnd | None:
    failure = platform.get("failure")
    if not failure:
        return None
    status: AttemptStatus = platform.get("failure_status", "killed")
    return AttemptEnd(
        status=status, reason=str(platform.get("failure_reason", status)), evidence=f"{failure}; {evidence}"
    )


def format_ranks(ranks: Sequence[int]) -> str:
    """ "rank 3", or "ranks 0, 1, 3", with at most eight numbers."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:8]))
    return f"ranks {shown}" + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def free_disk_bytes(folder: Path) -> int | None:
    """Bytes that a user may still write to the folder's disk; None if unknown."""
    try:
        disk = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else None


def read_stderr_tail(folder: Path) -> str:
    """The ends of the standard errors of the job's hosts, the first host's last."""
    texts = []
    for path in sorted(folder.glob("stderr*.log"), reverse=True):
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                texts.append(file.read().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def last_stderr_line(folder: Path) -> str:
    lines = [line.strip() for line in read_stderr_tail(folder).splitlines() if line.strip()]
    return lines[-1][:500] if lines else "stderr is empty"
