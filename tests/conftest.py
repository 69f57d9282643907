"""The example plugin as a stranger would have it, and the command line in a process and folders of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import pytest

_HERE = Path(__file__).parent
# Tests wait for no measurement outside, nor does one outside wait for them.
_LOCKS = tempfile.TemporaryDirectory(prefix="tunemark-locks-")
os.environ["TUNEMARK_LOCKS"] = _LOCKS.name

Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]
T = TypeVar("T")
# Seconds in which anything that is waited for comes, on a slow machine that others share.
_PATIENCE_S = 300.0
# Seconds that processes which were ended may need to be gone.
_GONE_S = 30.0


@pytest.fixture(scope="session")
def example_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which a process finds tests/example_plugin installed; nobody else's environment is touched."""
    return _installed(["example_plugin"], tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def faulty_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of tests/faulty_plugin, and of the example, whose data it uses."""
    return _installed(["example_plugin", "faulty_plugin"], tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="session")
def unsound_plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of tests/unsound_plugins, and of the example, which they take a name from."""
    return _installed(["example_plugin", "unsound_plugins"], tmp_path_factory.mktemp("unsound"))


@pytest.fixture(scope="session")
def lazy_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of tests/lazy_plugin."""
    return _installed(["lazy_plugin"], tmp_path_factory.mktemp("lazy"))


def _installed(names: Sequence[str], folder: Path) -> dict[str, str]:
    # Copies, because building leaves files beside the sources.
    sources = [folder / name for name in names]
    for source in sources:
        shutil.copytree(_HERE / source.name, source, ignore=shutil.ignore_patterns("__pycache__"))
    quiet = ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    pip = [sys.executable, "-m", "pip", "install", *quiet, *alone, *map(str, sources)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    former = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *([former] if former else [])])}


@pytest.fixture(scope="session")
def tunemark_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared tokens are kept, once for all tests of a session."""
    return tmp_path_factory.mktemp("tunemark-cache")


@pytest.fixture
def tunemark(tmp_path: Path, tunemark_cache: Path) -> Tunemark:
    """Run `tunemark WORDS...` in an empty folder; `environment` is added to what the process inherits."""

    def run(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "TUNEMARK_CACHE": str(tunemark_cache), **(environment or {})}
        command = [sys.executable, "-m", "tunemark", *words]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    return run


class Command:
    """A running `tunemark run` in a folder of its own. job: its process. said: lines of its standard error so far."""

    def __init__(self, words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.folder, self.variables = folder, dict(variables)
        self.job = subprocess.Popen(
            [sys.executable, "-m", "tunemark", "run", *words], cwd=folder, env=self.variables, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.said: list[str] = []
        self._printed: list[str] = []
        self._readers = [self._read(self.job.stdout, self._printed), self._read(self.job.stderr, self.said)]

    def until(self, look: Callable[[], T | None], seconds: float = _PATIENCE_S) -> T:
        """What `look` gives as soon as that is something; what the command has said, where it never is."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            is_over = self.job.poll() is not None
            if found := look():
                return found
            if is_over:
                break
            time.sleep(0.02)
        raise AssertionError("it never came: " + "".join(self.said))

    def line(self, beginning: str) -> str:
        """The first line on standard error that begins so."""
        return self.until(lambda: next((line for line in self.said if line.startswith(beginning)), None))

    def attempt(self, steps: int, *, rank: int = 0) -> Path:
        """The attempt's folder, once that rank has taken so many steps."""

        def look() -> Path | None:
            for path in self.folder.glob(f"runs/*/*/records.{rank}.jsonl"):
                if path.read_bytes().count(b'"kind":"step"') >= steps:
                    return path.parent
            return None

        return self.until(look)

    def ended(self, seconds: float = _PATIENCE_S) -> int:
        """The exit code, once the command has ended and all that it said was read."""
        code = self.job.wait(seconds)
        for reader in self._readers:
            reader.join(_GONE_S)
        assert "Traceback" not in "".join(self.said), "".join(self.said)
        return code

    def rows(self, seconds: float = _PATIENCE_S) -> list[dict[str, Any]]:
        """The results, once the command has ended."""
        self.ended(seconds)
        assert self._printed, "".join(self.said)
        return [json.loads(line) for line in self._printed]

    def row(self, seconds: float = _PATIENCE_S) -> dict[str, Any]:
        """The one result."""
        (row,) = self.rows(seconds)
        return row

    def left(self) -> list[str]:
        """The command lines of what still works for the folder's attempts, after the moment that an end may take."""
        until_s = time.monotonic() + _GONE_S
        while (found := self._agents()) and time.monotonic() < until_s:
            time.sleep(0.02)
        return found

    def close(self) -> None:
        if self.job.poll() is None:
            self.job.kill()
        self.job.wait(_GONE_S)
        for reader, pipe in zip(self._readers, (self.job.stdout, self.job.stderr), strict=True):
            reader.join(_GONE_S)
            # Who would still read from it holds it.
            if pipe is not None and not reader.is_alive():
                pipe.close()

    def _agents(self) -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"TUNEMARK_AGENT={self.folder}/" in path.read_text(errors="replace"):
                    found.append((path.parent / "cmdline").read_text(errors="replace").replace("\0", " "))
        return found

    @staticmethod
    def _read(pipe: TextIO | None, into: list[str]) -> threading.Thread:
        assert pipe is not None, "it was asked for"

        def follow() -> None:
            for line in pipe:
                into.append(line)

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()
        return reader


@pytest.fixture
def start(tmp_path: Path, tunemark_cache: Path) -> Iterator[Callable[..., Command]]:
    """Start `tunemark run WORDS...` in the test's folder, or in another; none outlives the test."""
    started: list[Command] = []

    def begin(*words: str, variables: Mapping[str, str] = os.environ, folder: Path = tmp_path) -> Command:
        started.append(Command(words, folder, {**variables, "TUNEMARK_CACHE": str(tunemark_cache)}))
        return started[-1]

    yield begin
    for each in started:
        each.close()
