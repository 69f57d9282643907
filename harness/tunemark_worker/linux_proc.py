"""What Linux says in /proc of this host and its processes. On other systems everything is unknown: empty or None."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

# Environment variable with a mark that all child processes inherit, by which they are found after their parent's end.
MARK_VARIABLE = "TUNEMARK_MARK"


def is_supported() -> bool:
    """Whether this host has a /proc."""
    return os.path.isdir("/proc/self")


def read_text(path: str) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# Cores of this process whose threads are bound to one each: no thread alone tells them.
_divided_cores: List[int] = []


def note_divided_cores(cores: Iterable[int]) -> None:
    """Remember the cores of this process, because from now on each thread may use one of them alone."""
    _divided_cores[:] = sorted(cores)


def cpu_affinity() -> Optional[List[int]]:
    """The cores that this process may run on; None if unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return list(_divided_cores) or sorted(os.sched_getaffinity(0))


def read_cpu_model(path: str = "/proc/cpuinfo") -> str:
    """CPU model name of this host; empty if unknown."""
    text = read_text(path)
    lines = (line for line in text.splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip() if text else platform.processor()


def count_oom_kills() -> int:
    """Processes that the kernel has killed since its start because memory was exhausted."""
    lines = (line for line in read_text("/proc/vmstat").splitlines() if line.startswith("oom_kill "))
    return int(next(lines, "oom_kill 0").split()[1])


def read_busy_s(cores: Optional[Sequence[int]], stat: str = "/proc/stat") -> Optional[float]:
    """CPU seconds so far of these cores, used by any process; None if unknown."""
    own_cores = {"cpu{}".format(core) for core in cores or ()}
    lines = [line.split() for line in read_text(stat).splitlines() if line.startswith("cpu")]
    # Fields of proc(5): user nice system idle iowait irq softirq steal; steal counts as busy.
    ticks = [sum(map(int, [*f[1:4], *f[6:9]])) for f in lines if f[0] in own_cores]
    return sum(ticks) / float(os.sysconf("SC_CLK_TCK")) if ticks else None


def read_state(pid: int) -> str:
    """The state letter of proc(5), such as R, T, or Z of a zombie; empty if the process is gone."""
    return read_text("/proc/{}/stat".format(pid)).rpartition(")")[2].strip()[:1]


def read_command(pid: int) -> str:
    """The command line, its words separated by blanks; empty if the process is gone, or a zombie."""
    return read_text("/proc/{}/cmdline".format(pid)).replace("\0", " ").strip()


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, unless it is gone or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group_signal(group: int, number: int) -> None:
    """Send a signal to all processes of a group, unless it is gone or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def make_death_signal(number: int) -> Optional[Callable[[], None]]:
    """A `preexec_fn` that has the child receive a signal when this process dies; None if the system cannot do that."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None
    # PR_SET_PDEATHSIG of prctl(2).
    return lambda: prctl(1, number)


def find_processes(variable: str, value: str) -> Iterator[Tuple[int, Dict[str, str]]]:
    """(pid, environment) of every other process with this environment variable, in any session."""
    for name in os.listdir("/proc") if is_supported() else ():
        if name.isdigit() and int(name) != os.getpid():
            content = read_text("/proc/{}/environ".format(name))
            variables = dict(part.partition("=")[::2] for part in content.split("\0") if part)
            if variables.get(variable) == value:
                yield int(name), variables


def find_marked_processes(mark: str) -> List[Tuple[int, str]]:
    """(pid, command) of all other processes with the mark, without zombies."""
    found = [(pid, read_command(pid)[:200]) for pid, _ in find_processes(MARK_VARIABLE, mark)]
    return [(pid, command) for pid, command in found if command]
