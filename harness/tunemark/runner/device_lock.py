"""One measurement at a time on each device of this machine, over all processes and users that use tunemark.

The lock is advisory: a lock of the kernel on a file, which ends with the process that holds it, however it ends. A note
beside it says who holds it, for those who wait. Other programs are not kept out; their load is a finding of the run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from tunemark.errors import BadExperiment
from tunemark.plugin import Accelerator, Device, HasMonitor
from tunemark.redaction import hide_secrets
from tunemark.results.attempt_process import read_boot_id
from tunemark.visible_text import make_visible

# Where the locks are, if not in the first of the folders that every user of a machine may write to.
LOCKS_VARIABLE = "TUNEMARK_LOCKS"
# In /tmp, too, files are opened without following links, and only where the sticky bit keeps them their owner's.
_SHARED_FOLDERS = ("/run/lock", "/var/lock", "/tmp")  # noqa: S108  # see above
_POLL_S = 0.2
_MOST_NOTE_BYTES = 4096


class HolderNote(msgspec.Struct, frozen=True):
    """Who holds a lock. boot: the machine's boot id, since pids are used again after a restart."""

    pid: int
    boot: str
    command: str


@contextlib.contextmanager
def hold_devices(
    names: Sequence[str], *, say: Callable[[str], None], is_waiting_allowed: bool = True, folder: Path | None = None
) -> Iterator[bool]:
    """Hold the locks of these devices; gives whether another measurement was waited for.

    say: hears for whom it waits. is_waiting_allowed: else `BadExperiment` where another measurement has one of them.
    """
    place = folder or _find_folder()
    if place is None:
        say("there is no folder for the locks of devices: other measurements are not kept out")
        yield False
        return
    has_waited = False
    with contextlib.ExitStack() as held:
        # In one order, so that two commands that need several devices do not wait for each other.
        for name in sorted(set(names)):
            has_waited |= _hold(place, name, held, say, is_waiting_allowed)
        yield has_waited


def list_device_names(device: Device, accelerator: Accelerator) -> list[str]:
    """The names under which a job's devices are locked: as its monitor knows them, else of the kind of device."""
    try:
        target = device.monitor_target(accelerator) if isinstance(device, HasMonitor) else None
    except Exception:  # third-party code may raise anything; its monitor says so
        target = None
    if target is None or not target.devices:
        return [device.name]
    return [f"{device.name}-{name}" for name in target.devices]


def find_stale_locks() -> list[Path]:
    """Files of locks that nobody holds, and notes of holders that are gone; of this user alone."""
    place = _find_folder()
    found: list[Path] = []
    for path in sorted(place.glob("tunemark-*")) if place else ():
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            if (path.suffix == ".json" and _read_living(path) is None) or (path.suffix == ".lock" and _is_free(path)):
                found.append(path)
    return found


def _is_free(path: Path) -> bool:
    import fcntl

    lock = _open_to_read(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _hold(
    place: Path, name: str, held: contextlib.ExitStack, say: Callable[[str], None], is_waiting_allowed: bool
) -> bool:
    import fcntl  # absent on Windows, where no folder is found

    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    path = place / f"tunemark-{slug}.lock"
    told = ""
    while True:
        try:
            lock = _open_lock(path)
        except OSError as error:
            say(f"the lock of {name} cannot be had ({error}): other measurements are not kept out")
            return bool(told)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_there(lock, path):
                held.callback(os.close, lock)
                break
            os.close(lock)  # its file was removed meanwhile, so that others would lock a new one
            continue
        except BlockingIOError:
            os.close(lock)
            holder = _describe_holder(place, slug)
        if not is_waiting_allowed:
            raise BadExperiment(
                what=f"another measurement has {name}",
                why=holder,
                next="wait for it, or leave out --no-wait, which has this one wait by itself",
            )
        if holder != told:
            say(f"{name} is in use, waiting for {holder}")
            told = holder
        time.sleep(_POLL_S)
    note = place / f"tunemark-{slug}.{os.getuid()}.json"
    _write_note(note)
    held.callback(lambda: note.unlink(missing_ok=True))
    return bool(told)


def _is_still_there(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.lstat())
    except OSError:
        return False


def _find_folder() -> Path | None:
    """The folder of the locks; None on a system without one."""
    if own := os.environ.get(LOCKS_VARIABLE):
        Path(own).mkdir(parents=True, exist_ok=True)
        return Path(own)
    if not hasattr(os, "getuid"):
        return None
    for name in _SHARED_FOLDERS:
        folder = Path(name)
        # Only where nobody can replace another user's file.
        if folder.is_dir() and os.access(folder, os.W_OK) and folder.stat().st_mode & stat.S_ISVTX:
            return folder
    return None


def _open_lock(path: Path) -> int:
    """The lock's file, which may be another user's: it is only read. OSError if it cannot be had."""
    for _ in range(2):
        with contextlib.suppress(FileExistsError):
            try:
                return _open_to_read(path)
            except FileNotFoundError:
                os.close(_make_readable(path))
    return _open_to_read(path)


def _open_to_read(path: Path) -> int:
    """OSError for what is no file: nobody's pipe is waited for, and no link followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def _make_readable(path: Path) -> int:
    """A new file that every user may read, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    os.fchmod(descriptor, 0o644)
    return descriptor


def _write_note(path: Path) -> None:
    note = HolderNote(os.getpid(), read_boot_id(), hide_secrets(" ".join(sys.argv))[:300])
    # Without a note the holder stays unnamed; the lock holds all the same.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        with open(_make_readable(path), "wb") as file:
            file.write(msgspec.json.encode(note))


def _describe_holder(place: Path, slug: str) -> str:
    """Who has the lock, by the notes of processes that are alive."""
    for path in sorted(place.glob(f"tunemark-{slug}.*.json")):
        if note := _read_living(path):
            return f"process {note.pid} ({make_visible(' '.join(note.command.split()))})"  # another user's words
    return "a process that left no note"


def _read_living(path: Path) -> HolderNote | None:
    """A holder's note; None unless it can be read and its process is alive."""
    with contextlib.suppress(OSError, msgspec.DecodeError, RecursionError):
        with open(_open_to_read(path), "rb") as file:
            note = msgspec.json.decode(file.read(_MOST_NOTE_BYTES), type=HolderNote)
        if note.boot == read_boot_id() and psutil.pid_exists(note.pid):
            return note
    return None
