"""A device is one measurement's at a time, whoever runs it and however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tunemark.errors import BadExperiment
from tunemark.runner.device_lock import hold_devices

_HOLD = """
import sys, time
from pathlib import Path
from tunemark.runner.device_lock import hold_devices
with hold_devices(sys.argv[2:], say=lambda words: print(words, flush=True), folder=Path(sys.argv[1])) as has_waited:
    print("held", has_waited, flush=True)
    sys.stdin.readline()
"""


def _hold(folder: Path, *names: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _HOLD, str(folder), *names]
    started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    return started


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def _release(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)


def test_the_second_waits_and_says_for_whom(tmp_path: Path) -> None:
    first = _hold(tmp_path, "cpu")
    assert _line(first) == "held False"
    second = _hold(tmp_path, "cpu")
    assert _line(second).startswith(f"cpu is in use, waiting for process {first.pid} (")
    with hold_devices(["cuda-0"], say=print, folder=tmp_path) as has_waited:
        assert not has_waited
    _release(first)
    assert _line(second) == "held True"
    _release(second)


def test_one_that_may_not_wait_is_refused(tmp_path: Path) -> None:
    first = _hold(tmp_path, "cuda-1")
    _line(first)
    with (
        pytest.raises(BadExperiment, match="another measurement has cuda-1"),
        hold_devices(["cuda-0", "cuda-1"], say=print, is_waiting_allowed=False, folder=tmp_path),
    ):
        pass
    _release(first)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    first = _hold(tmp_path, "cpu")
    _line(first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with hold_devices(["cpu"], say=print, is_waiting_allowed=False, folder=tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["tunemark-cpu.lock"]
    first.communicate()


def test_two_that_need_the_same_devices_in_another_order_both_get_them(tmp_path: Path) -> None:
    both = [_hold(tmp_path, "a", "b"), _hold(tmp_path, "b", "a")]
    timer = threading.Timer(60, lambda: [each.kill() for each in both])
    timer.start()
    for each in both:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in both:
        each.communicate()
    timer.cancel()
    assert [each.returncode for each in both] == [0, 0]


def test_what_strangers_put_there_is_neither_followed_nor_obeyed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "tunemark-cpu.lock").symlink_to(secret)
    (locks / f"tunemark-cuda-0.{os.getuid()}.json").symlink_to(secret)
    os.mkfifo(locks / "tunemark-cuda-1.lock")
    said: list[str] = []
    with hold_devices(["cpu", "cuda-0", "cuda-1"], say=said.append, folder=locks):
        pass
    assert [words.partition(" cannot be had")[0] for words in said] == ["the lock of cpu", "the lock of cuda-1"]
    assert secret.read_text() == "kept"
    first = _hold(locks, "x")
    _line(first)
    (note,) = locks.glob("tunemark-x.*.json")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note.write_text(json.dumps({"pid": os.getpid(), "boot": boot, "command": "\x1b]0;owned\x07"}))
    with (
        pytest.raises(BadExperiment) as refused,
        hold_devices(["x"], say=print, is_waiting_allowed=False, folder=locks),
    ):
        pass
    assert "\x1b" not in str(refused.value)
    _release(first)


def test_every_user_can_read_a_lock_and_its_note_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        with hold_devices(["cpu"], say=print, folder=tmp_path):
            modes = {path.suffix: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {".lock": 0o644, ".json": 0o644}


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become another user")
def test_another_users_measurement_is_waited_for_and_neither_touches_the_others_files(tmp_path: Path) -> None:
    """In a folder like /run/lock: everybody's, with the sticky bit."""
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(0o1777)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o001)
        if path.name.startswith("pytest-of-"):
            break
    begun, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # another user, who has the device until it is told to leave it
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            with hold_devices(["cpu"], say=lambda words: None, folder=locks):
                os.write(begun[1], b".")
                os.read(go[0], 1)
            status = 0
        finally:
            os._exit(status)
    assert os.read(begun[0], 1) == b"."
    said: list[str] = []
    threading.Timer(1.0, os.write, (go[1], b".")).start()
    with hold_devices(["cpu"], say=said.append, folder=locks) as has_waited:
        assert has_waited
        assert os.waitpid(child, 0)[1] == 0
    assert said[0].startswith(f"cpu is in use, waiting for process {child} (")
    assert [path.name for path in locks.iterdir()] == ["tunemark-cpu.lock"]
    assert (locks / "tunemark-cpu.lock").stat().st_uid == 65534
