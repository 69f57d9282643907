"""Hosts find each other although strangers connect, and prove that they have the job's key without sending it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tunemark_worker.host_rendezvous import HostRendezvous

_JOB = {"nodes": 3, "key": "a secret", "host": "127.0.0.1", "meeting_s": 30.0}


def _meet(folder: Path, node: int, job: dict[str, Any] = _JOB) -> tuple[str, int, str]:
    until_s = time.monotonic() + 30

    def wait(until: float, words: str) -> None:
        if time.monotonic() > min(until, until_s):
            raise OSError(words)

    return HostRendezvous(job, str(folder), node, wait).meet()


class _Host(threading.Thread):
    """A host's part of the meeting, in a thread."""

    def __init__(self, folder: Path, node: int, job: dict[str, Any] = _JOB) -> None:
        super().__init__(daemon=True)
        self._arguments = (folder, node, job)
        self.found: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.found = _meet(*self._arguments)
        except OSError as error:
            self.found = error


def _port(folder: Path) -> int:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((folder / "meeting.json").read_text())["port"])
        time.sleep(0.01)
    raise AssertionError("no host listens")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_strangers_send_ends_no_meeting(tmp_path: Path) -> None:
    first = _Host(tmp_path, 0)
    port = _port(tmp_path)
    for words in (
        b"5\n", b"null\n", b"[1]\n", b'{"node": 1}\n', b"{" * 4000 + b"\n", b"[" * 4090 + b"\n", b"\xff\xfe\n", b"\n",
        b'{"node": 1, "nonce": 3, "mac": "x"}\n', '{"node": 1, "nonce": "", "mac": "\u00e9"}\n'.encode(),
        b'{"node": 1, "nonce": "n", "mac": "00"}\n', b"x" * 100_000, b"GET / HTTP/1.1\r\n\r\n", b"",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port)) as stranger, contextlib.suppress(OSError):
            stranger.sendall(words)
    # One that says nothing and one without end are waited for by nobody.
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    others = [_Host(tmp_path, node) for node in (1, 2)]
    for host in (first, *others):
        host.join(20)
    for each in silent:
        each.close()
    assert first.found == (*others[0].found[:2], "127.0.0.1")
    assert others[0].found[:2] == others[1].found[:2]


def test_a_host_of_another_job_is_not_let_in_nor_believed(tmp_path: Path) -> None:
    first = _Host(tmp_path, 0, {**_JOB, "nodes": 2, "meeting_s": 1.0})
    stranger = _Host(tmp_path, 1, {**_JOB, "nodes": 2, "key": "another", "meeting_s": 1.0})
    first.join(20)
    stranger.join(20)
    assert "1 of 2 hosts joined" in str(first.found)
    assert "first host not reached" in str(stranger.found)


def test_the_key_is_never_sent_and_a_recorded_greeting_is_worth_nothing(tmp_path: Path) -> None:
    """A stranger that relays a host's words learns no key, and cannot use them a second time."""
    server = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "meeting.json").write_text(json.dumps({"addresses": ["127.0.0.1"], "port": server.getsockname()[1]}))
    guest = _Host(tmp_path, 1, {**_JOB, "nodes": 2, "meeting_s": 2.0})
    relay, _ = server.accept()
    with relay, relay.makefile("rb") as stream:
        relay.sendall(b"nonce of the relay\n")
        greeting = stream.readline()
        relay.sendall(b'{"host": "127.0.0.1", "port": 1, "mac": "00"}\n')
    server.close()
    assert b"a secret" not in greeting
    guest.join(20)
    assert isinstance(guest.found, OSError)
    (tmp_path / "meeting.json").unlink()
    first = _Host(tmp_path, 0, {**_JOB, "nodes": 2, "meeting_s": 3.0})
    with socket.create_connection(("127.0.0.1", _port(tmp_path))) as replay:
        replay.sendall(greeting)
        first.join(20)
    assert "1 of 2 hosts joined" in str(first.found)
