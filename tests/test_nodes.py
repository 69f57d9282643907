"""The launcher `nodes`: this host and another, which is a second agent on the loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_RUN = [sys.executable, "-m", "tunemark", "run", "--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2"]
_RUN += [
    "--dataset",
    "synthetic",
    "--sequence",
    "32",
    "--micro-batch",
    "2",
    "--no-calibrate",
    "--warmup",
    "2",
    "--json",
]
_RUN += ["--repeats", "1", "--target-interval", "0"]
_ENDLESS = ["--steps", "100000"]

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the launcher needs /proc")


class Command:
    """A `tunemark run` whose standard error is read line by line."""

    def __init__(self, folder: Path, cache: Path, *words: str, launcher: str = "nodes:host=127.0.0.1") -> None:
        variables = {**os.environ, "TUNEMARK_CACHE": str(cache), "SECRET_OF_MINE": "do-not-write-me"}
        self.folder, self.variables = folder, variables
        self.job = subprocess.Popen(
            [*_RUN, "--launcher", launcher, *words],
            cwd=folder,
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.job.stderr is not None
        for line in self.job.stderr:
            self.said.append(line)

    def to_type(self) -> list[str]:
        """The command that is to be typed on the other host."""
        found = _until(lambda: next((line for line in self.said if line.startswith("  env PYTHONPATH=")), None), self)
        return shlex.split(found)

    def join(self) -> subprocess.Popen[str]:
        words = self.to_type()
        # Both hosts are this one, so the second one is given a core of its own where there are two.
        words = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *words]
        out = (self.folder / "guest.log").open("w")
        with out:
            return subprocess.Popen(words, cwd=self.folder, env=self.variables, text=True, stdout=out, stderr=out)

    def attempt(self, steps: int) -> Path:
        """The attempt's folder, once rank 0 has taken so many steps."""

        def look() -> Path | None:
            for path in self.folder.glob("runs/*/*/records.0.jsonl"):
                if path.read_text().count('"kind":"step"') >= steps:
                    return path.parent
            return None

        return _until(look, self)

    def close(self) -> None:
        if self.job.poll() is None:
            self.job.kill()
        self.job.wait(10)
        self._reader.join(10)
        for pipe in (self.job.stdout, self.job.stderr):
            assert pipe is not None
            pipe.close()

    def row(self) -> dict[str, Any]:
        assert self.job.stdout is not None
        out = self.job.stdout.read()
        self.job.wait(120)
        self._reader.join(10)
        assert "Traceback" not in "".join(self.said), "".join(self.said)
        (line,) = out.splitlines() or ["".join(self.said)]
        row: dict[str, Any] = json.loads(line)
        return row


def _until(look: Any, command: Command, seconds: float = 120) -> Any:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s and command.job.poll() is None:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    command.job.kill()
    raise AssertionError("".join(command.said))


def _left(folder: Path) -> list[str]:
    """Processes that work for attempts below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TUNEMARK_AGENT={folder}" in path.read_text(errors="replace"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.fixture
def start(tmp_path: Path, tunemark_cache: Path) -> Iterator[Callable[..., Command]]:
    """Start a command in the test's folder; none outlives the test."""
    started: list[Command] = []

    def begin(*words: str, **more: str) -> Command:
        started.append(Command(tmp_path, tunemark_cache, *words, **more))
        return started[-1]

    yield begin
    for each in started:
        each.close()


@pytest.fixture
def guests() -> Iterator[list[subprocess.Popen[str]]]:
    """Those that a test has started; none outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        if each.poll() is None:
            each.kill()
        each.wait(10)


@pytest.mark.full
def test_two_hosts_train_as_one_job(
    tmp_path: Path, start: Callable[..., Command], guests: list[subprocess.Popen[str]]
) -> None:
    command = start("--steps", "8", "--repeats", "2", "--export", "SECRET_OF_MINE")
    guests.append(command.join())
    row = command.row()
    assert (row["status"], row["attempts"], row["processes"]) == ("ok", 2, 2), row
    launcher = row["environment"]["launcher"]
    assert len(launcher["hosts"]) == 2
    assert row["queue_s"] >= 0
    # It was invited once for both attempts, and leaves by itself.
    assert guests[0].wait(10) == 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"do-not-write-me" not in path.read_bytes(), path
    assert not _left(tmp_path)


@pytest.mark.full
def test_a_host_without_an_exported_variable_refuses(
    tmp_path: Path, start: Callable[..., Command], guests: list[subprocess.Popen[str]]
) -> None:
    command = start("--steps", "8", "--export", "SECRET_OF_MINE")
    command.variables.pop("SECRET_OF_MINE")
    guests.append(command.join())
    row = command.row()
    assert row["status"] == "error"
    assert "this host has no variable SECRET_OF_MINE" in row["each_attempt"][0]["evidence"]
    assert not _left(tmp_path)


@pytest.mark.full
def test_a_host_that_never_joins_is_a_row(tmp_path: Path, start: Callable[..., Command]) -> None:
    command = start("--steps", "8", launcher="nodes:host=127.0.0.1:wait=2")
    command.to_type()
    began_s = time.monotonic()
    row = command.row()
    assert time.monotonic() - began_s < 20
    assert (row["status"], command.job.returncode) == ("error", 4)
    assert re.search(r"1 of 2 hosts came in 2 s: \S+", row["each_attempt"][0]["evidence"])
    assert not _left(tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_host_that_vanishes_is_a_row_and_leaves_no_process(
    tmp_path: Path, start: Callable[..., Command], guests: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    command = start(*_ENDLESS)
    guests.append(command.join())
    command.attempt(2)
    guests[0].send_signal(number)
    began_s = time.monotonic()
    row = command.row()
    # 20 s of silence, then 15 for the others to end, and a machine that other tests share.
    assert time.monotonic() - began_s < 120
    assert row["status"] == "killed"
    assert "no sign of life" in row["each_attempt"][0]["evidence"]
    if number == signal.SIGSTOP:
        guests[0].send_signal(signal.SIGCONT)
        assert guests[0].wait(30) == 0
    until_s = time.monotonic() + 10
    while _left(tmp_path) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not _left(tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_command_that_ends_leaves_no_process_on_any_host(
    tmp_path: Path, start: Callable[..., Command], guests: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    command = start(*_ENDLESS)
    guests.append(command.join())
    command.attempt(2)
    command.job.send_signal(number)
    code = command.job.wait(60)
    assert code == (130 if number == signal.SIGTERM else -9)
    assert guests[0].wait(40) == 0
    until_s = time.monotonic() + 10
    while _left(tmp_path) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not _left(tmp_path)
