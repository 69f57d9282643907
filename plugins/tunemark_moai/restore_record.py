"""The record of the setting to restore after a run: a small file in the store, which survives a crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from tunemark.atomic_write import write_atomically
from tunemark.errors import TunemarkError

RECORD_NAME = ".moai-put-back.json"

ChangedSetting = Literal["flavor", "default"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreRecord:
    """The state before the change. how: what was changed, the flavor of an accelerator or which one is the default.
    pid, host: of the process that changed it. since: time of the change, UTC."""

    how: ChangedSetting
    device: int
    flavor: str
    pid: int
    host: str
    since: str

    @classmethod
    def of_now(cls, how: ChangedSetting, device: int, flavor: str) -> RestoreRecord:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(how=how, device=device, flavor=flavor, pid=os.getpid(), host=socket.gethostname(), since=since)

    @property
    def command(self) -> str:
        """What the user types to restore it."""
        if self.how == "default":
            return f"moreh-smi device --switch {self.device}"
        return f"moreh-switch-model   (and select {self.flavor})"

    @property
    def is_held(self) -> bool:
        """Whether another process of this host changed it and still runs."""
        if self.host != socket.gethostname() or self.pid == os.getpid():
            return False
        import psutil  # needed only where a record is left

        return bool(psutil.pid_exists(self.pid))


def read_restore_record(store: Path) -> RestoreRecord | None:
    """The record that an earlier run left; None where there is none."""
    path = store / RECORD_NAME
    try:
        return RestoreRecord(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise TunemarkError(
            what=f"{path} cannot be read",
            why=f"it records the flavor to restore after an earlier run: {error}",
            next="check with `moreh-smi` that the flavor is the one you want, then delete the file",
        ) from error


def write_restore_record(store: Path, former: RestoreRecord) -> None:
    write_atomically(store / RECORD_NAME, json.dumps(asdict(former), indent=1) + "\n")


def delete_restore_record(store: Path) -> None:
    (store / RECORD_NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM to the end of the block, so that a restore is not interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    formers = {n: signal.signal(n, lambda number, _: caught.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in formers.items():
            signal.signal(number, former)
    if caught:
        raise KeyboardInterrupt
