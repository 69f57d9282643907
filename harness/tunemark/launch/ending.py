"""How an attempt ended, by what is left of it: the records first, then what torch's elastic agent and the platform
said, the exit code last. Where one rank's end has ended the others, that one is named."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "oom", "error", "killed", "timeout"]

# The last of a log that is looked through, bytes.
_TAIL_BYTES = 20_000
# Less than this left on a disk, and a record of a step may not fit any more. Bytes.
_FULL_BYTES = 16 * 1024
# A rank whose peer is gone says so in one of these ways (gloo's and NCCL's words, torch 2.1 to 2.13).
_PEER_GONE = re.compile(
    r"Connection (?:closed|reset) by|Broken pipe|remote process (?:exited|has)|Socket Timeout|"
    r"[Cc]onnection refused|[Cc]onnectFullMesh failed",
)
# The elastic agent's account of the rank that failed first.
_ROOT_CAUSE = re.compile(
    r"Root Cause \(first observed failure\):.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+) \(pid: (\d+)\)", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How an attempt ended. evidence: what shows it (a line of stderr, an exit code, the kernel's count of kills)."""

    status: Status
    reason: str
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Remains:
    """What is left of an attempt.

    code: of its exit. ends: each rank's last record, None where it wrote none. silence: words on the silence that it
    was ended for, empty where it was not. kills: processes that the kernel killed for memory meanwhile, on the hosts
    that say so. platform: what the launcher's `facts` said. folder: with its logs.
    """

    code: int
    ends: Sequence[Mapping[str, Any] | None]
    silence: str
    kills: int
    platform: Mapping[str, Any]
    folder: Path


def judge(remains: Remains) -> Ended:
    """The end of an attempt."""
    ends, folder = remains.ends, remains.folder
    if remains.silence:
        return Ended(status="timeout", reason="silent", evidence=f"{remains.silence}; last words: {last_words(folder)}")
    missing = [rank for rank, end in enumerate(ends) if end is None]
    if missing:
        ended = _cut_off(remains, missing)
        if ended is not None:
            return ended
    failed = [end for end in ends if end is not None and end["status"] != "ok"]
    if failed:
        # What a rank says of a peer that is gone is the second thing that happened.
        end = min(
            failed, key=lambda end: (end["status"] != "oom", _PEER_GONE.search(str(end.get("error"))) is not None)
        )
        status: Status = "oom" if end["status"] == "oom" else "error"
        return Ended(status=status, reason=str(end["reason"]), evidence=str(end.get("error") or last_words(folder)))
    if not missing:
        reason = str(ends[0]["reason"]) if ends[0] else ""
        if reason == "interrupted":
            words = "ended at a window's edge after SIGTERM"
            return _platform_failure(remains.platform, words) or Ended(status="killed", reason=reason, evidence=words)
        return Ended(status="ok", reason=reason, evidence="every rank wrote its end record")
    code = remains.code
    if code < 0 or code in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
        number = -code if code < 0 else code - 128
        return Ended(status="killed", reason=signal.Signals(number).name, evidence=f"no end record; exit code {code}")
    return Ended(status="error", reason=f"exit code {code}", evidence=last_words(folder))


def _cut_off(remains: Remains, missing: Sequence[int]) -> Ended | None:
    """The end of an attempt some of whose ranks wrote no end; None where nothing outside them is known to be why."""
    folder, platform = remains.folder, remains.platform
    words = "no end record" if len(remains.ends) == 1 else f"no end record of {ranks_words(missing)}"
    if ended := _platform_failure(platform, words):
        return ended
    if remains.kills > 0:
        kills = f"the kernel killed {remains.kills} processes of this host for memory"
        return Ended(status="oom", reason="host memory", evidence=f"{kills}; {words}")
    cause = _ROOT_CAUSE.search(tail(folder))
    if cause and int(cause[2]) < 0:
        name = signal.Signals(-int(cause[2])).name
        evidence = f"rank {cause[1]} (process {cause[3]}) was ended by {name}; {words}"
        return Ended(status="killed", reason=name, evidence=evidence)
    left = free_bytes(folder)
    if left is not None and left < _FULL_BYTES:
        return Ended(
            status="error", reason="disk full", evidence=f"{left} bytes are left on the disk of {folder}; {words}"
        )
    return None


def _platform_failure(platform: Mapping[str, Any], words: str) -> Ended | None:
    failure = platform.get("failure")
    if not failure:
        return None
    status: Status = platform.get("failure_status", "killed")
    return Ended(status=status, reason=str(platform.get("failure_reason", status)), evidence=f"{failure}; {words}")


def ranks_words(ranks: Sequence[int]) -> str:
    """ "rank 3", or "ranks 0, 1, 3"; of many only the first."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:8]))
    return f"ranks {shown}" + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def free_bytes(folder: Path) -> int | None:
    """What a user may still write to the folder's disk; None where the system does not say."""
    try:
        disk = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else None


def tail(folder: Path) -> str:
    """The last of what the job's hosts wrote on standard error, the first host's last."""
    texts = []
    for path in sorted(folder.glob("stderr*.log"), reverse=True):
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                texts.append(file.read().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def last_words(folder: Path) -> str:
    lines = [line.strip() for line in tail(folder).splitlines() if line.strip()]
    return lines[-1][:500] if lines else "stderr is empty"


def kernel_kills() -> int:
    """How often the kernel has killed for memory on this host so far; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
