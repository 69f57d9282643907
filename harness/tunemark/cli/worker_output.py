"""What the worker processes of attempts print, line by line as it appears: `--verbose`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

_LOOK_EVERY_S = 0.2
_NAMES = ("stdout.log", "stderr.log")


class WorkerOutput(AbstractContextManager["WorkerOutput"]):
    """Follows the output of all attempts below a store that begin from now on. say: prints a line; it is called from a
    thread of its own, and once more for each line that is left at the end."""

    def __init__(self, store: Path, say: Callable[[str], None]) -> None:
        self._store, self._say = store, say
        self._began_s = time.time()
        self._read: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="worker output", daemon=True)

    def __enter__(self) -> WorkerOutput:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.flush(is_end=True)

    def flush(self, *, is_end: bool = False) -> None:
        """Say the whole lines that were printed since the last time; is_end: and what is left of a line."""
        with self._lock:
            for path in self._find_files():
                begun = self._read.get(path, 0)
                with path.open("rb") as file:
                    file.seek(begun)
                    text = file.read()
                whole = text if is_end else text[: text.rfind(b"\n") + 1]
                self._read[path] = begun + len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    self._say(f"{path.stem}: {line}")

    def _find_files(self) -> list[Path]:
        found = []
        # run/attempt/name; the trials of a search lie in a store of their own below it.
        for pattern in ("*/*/", "*/*/*/"):
            for name in _NAMES:
                for path in self._store.glob(pattern + name):
                    if path in self._read or path.stat().st_mtime >= self._began_s - 1:
                        found.append(path)
        return sorted(found)

    def _follow(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY_S):
            self.flush()
