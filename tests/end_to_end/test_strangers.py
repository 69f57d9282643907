"""Strangers: an outside client finds no port of a local job, and a store that was received runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Tunemark = Callable[..., "subprocess.CompletedProcess[str]"]

_RUN = ["--model", "mistral-tiny", "--strategy", "ddp", "--device", "cpu:2", "--oversubscribe", "--sequence", "32"]
_RUN += ["--micro-batch", "2", "--no-measure-peak", "--warmup", "1", "--json", "--repeats", "1"]
_RUN += ["--target-interval", "0", "--timeout", "300"]
_HERE, _THERE = "10.199.7.1", "10.199.7.2"
_KNOCK = """
import socket, sys
open_ports = []
for port in range(1, 65536):
    with socket.socket() as knocking:
        knocking.settimeout(2)
        if knocking.connect_ex((sys.argv[1], port)) == 0:
            open_ports.append(port)
print(*open_ports)
"""


@pytest.fixture
def outside() -> Iterator[str]:
    """A network namespace, as another machine on a network with this one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip")
    name = f"tunemark-{os.getpid()}"
    words = [
        f"netns add {name}",
        f"link add tm-here type veth peer name tm-there netns {name}",
        f"addr add {_HERE}/24 dev tm-here",
        "link set tm-here up",
        f"-n {name} addr add {_THERE}/24 dev tm-there",
        f"-n {name} link set tm-there up",
    ]
    for each in words:
        done = subprocess.run(["ip", *each.split()], capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
            pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def _knock(outside: str) -> set[int]:
    """The ports of this host that a client in the namespace can connect to."""
    words = ["ip", "netns", "exec", outside, sys.executable, "-c", _KNOCK, _HERE]
    return set(map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()))


@pytest.mark.full
def test_an_outside_client_finds_no_port_of_a_local_job(outside: str, start: Start) -> None:
    before = _knock(outside)
    command = start(*_RUN, "--steps", "100000", "--budget", "100000")
    command.attempt(2, rank=1)
    during = _knock(outside)
    assert command.job.poll() is None
    assert during <= before
    # The client does find what listens on every address.
    with socket.create_server(("", 0)) as everywhere:
        assert everywhere.getsockname()[1] in _knock(outside)


@pytest.mark.full
def test_no_store_brings_code_and_the_users_own_copy_is_verified(tunemark: Tunemark, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    own = {"TUNEMARK_CACHE": str(cache)}
    words = ["run", "--model", "mistral-tiny", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "2"]
    words += ["--no-measure-peak", "--warmup", "1", "--steps", "4", "--target-interval", "0", "--json", "--redo"]
    first = tunemark(*words, environment=own)
    assert first.returncode in (0, 3), first.stderr
    (code,) = cache.glob("code-*/*")
    # As earlier versions kept it, and as a stranger would send it.
    received = tmp_path / "runs" / ".code" / code.name
    shutil.copytree(code, received)
    (received / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    again = tunemark(*words, environment=own)
    assert again.returncode in (0, 3), again.stderr
    assert not (tmp_path / "ran").exists()
    assert json.loads(again.stdout.splitlines()[-1])["status"] == "ok"
    clock = code / "tunemark_worker" / "recorder.py"
    clock.write_text(clock.read_text().replace("self._clock()", "self._clock() / 2"))
    refused = tunemark(*words, environment=own)
    assert refused.returncode == 2
    assert "is not the code that its name says" in refused.stderr
