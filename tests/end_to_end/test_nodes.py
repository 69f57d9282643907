"""The launcher `nodes`: this host and another, which is a second agent on the loopback."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

_RUN = ["--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2", "--dataset", "synthetic"]
_RUN += ["--sequence", "32", "--micro-batch", "2", "--no-measure-peak", "--warmup", "2", "--json", "--repeats", "1"]
_RUN += ["--target-interval", "0", "--launcher", "nodes:host=127.0.0.1"]
_ENDLESS = ["--steps", "100000", "--budget", "100000"]
# Seconds without a sign of life after which somebody is taken for gone, and those that ranks then have to end.
_GONE_S, _GRACE_S = 20, 45
# More of them, for a slow machine that others share.
_SLOW_S = 60
# Seconds that a host which is left alone still waits for another command, and less than twice as many.
_ALONE_S = _GONE_S + 15
_SECRET = {**os.environ, "SECRET_OF_MINE": "do-not-write-me"}

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the launcher needs /proc"),
]

Start = Callable[..., Any]
Join = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Be the other host of a command: type there what it says. None outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: Any, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        # Both hosts are this one, so the second one is given a core of its own where there are two.
        words = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *shlex.split(command.line("  env PYTHONPATH="))]
        environment = command.variables if variables is None else dict(variables)
        with (tmp_path / "guest.log").open("w") as out:
            started.append(subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, stdout=out, stderr=out))
        return started[-1]

    yield begin
    for each in started:
        if each.poll() is None:
            each.kill()
        each.wait(_SLOW_S)


def test_two_hosts_train_as_one_job(tmp_path: Path, start: Start, join: Join) -> None:
    command = start(*_RUN, "--steps", "8", "--repeats", "2", "--export", "SECRET_OF_MINE", variables=_SECRET)
    guest = join(command)
    row = command.row()
    assert (row["status"], row["attempts"], row["processes"]) == ("ok", 2, 2), row
    launcher = row["environment"]["launcher"]
    assert len(launcher["hosts"]) == 2
    assert row["queue_s"] >= 0
    # It was invited once for both attempts, and leaves by itself.
    assert guest.wait(_SLOW_S) == 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"do-not-write-me" not in path.read_bytes(), path
    assert not command.left()


def test_a_host_without_an_exported_variable_refuses(start: Start, join: Join) -> None:
    command = start(*_RUN, "--steps", "8", "--export", "SECRET_OF_MINE", variables=_SECRET)
    join(command, {name: value for name, value in command.variables.items() if name != "SECRET_OF_MINE"})
    row = command.row()
    assert row["status"] == "error"
    assert "this host has no environment variable SECRET_OF_MINE" in row["each_attempt"][0]["evidence"]
    assert not command.left()


def test_a_host_that_never_joins_is_a_row(start: Start) -> None:
    command = start(*_RUN, "--steps", "8", "--launcher", "nodes:host=127.0.0.1:wait=2")
    command.line("  env PYTHONPATH=")
    row = command.row(2 + _SLOW_S)
    assert (row["status"], command.job.returncode) == ("error", 4)
    assert re.search(r"1 of 2 hosts joined in 2 s: \S+", row["each_attempt"][0]["evidence"])
    assert not command.left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_host_that_vanishes_is_a_row_and_leaves_no_process(start: Start, join: Join, number: signal.Signals) -> None:
    command = start(*_RUN, *_ENDLESS)
    guest = join(command)
    command.attempt(2)
    guest.send_signal(number)
    row = command.row(_GONE_S + _GRACE_S + _SLOW_S)
    assert row["status"] == "killed"
    assert "no sign of life" in row["each_attempt"][0]["evidence"]
    if number == signal.SIGSTOP:
        guest.send_signal(signal.SIGCONT)
        assert guest.wait(_ALONE_S) == 0
    assert not command.left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["terminated", "interrupted"])
def test_a_host_that_is_told_to_end_ends_all_hosts_at_one_step(
    start: Start, join: Join, number: signal.Signals
) -> None:
    command = start(*_RUN, *_ENDLESS)
    guest = join(command)
    command.attempt(2)
    guest.send_signal(number)
    row = command.row(_GRACE_S + _SLOW_S)
    assert row["status"] == "killed"
    evidence = row["each_attempt"][0]["evidence"]
    assert re.match(rf"the agent of host \S+ was ended by {number.name}; ended at a window's edge", evidence)
    assert not command.left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_command_that_ends_leaves_no_process_on_any_host(start: Start, join: Join, number: signal.Signals) -> None:
    command = start(*_RUN, *_ENDLESS)
    guest = join(command)
    command.attempt(2)
    command.job.send_signal(number)
    assert command.ended(_GRACE_S + _SLOW_S) == (130 if number == signal.SIGTERM else -9)
    assert guest.wait(_ALONE_S) == 0
    assert not command.left()
