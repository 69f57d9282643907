"""How the hosts of one job find each other: the first host listens, and says where in the attempt's folder.

Anybody on the network may connect: nothing that a stranger sends is unpickled, and none of it ends the meeting.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import select
import socket
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from tunemark_worker.atomic_write import write_json
from tunemark_worker.linux_proc import read_text

# Seconds between two looks for another host.
POLL_S = 0.5
# Seconds that the hosts of one job wait for each other: a scheduler starts them together.
_MEETING_S = 300.0
# Seconds that a connection has to say who it is, its longest line, and how many may be open at a time.
_GREETING_S, _MAX_LINE_BYTES, _MAX_GUESTS = 5.0, 4096, 64


class HostRendezvous:
    """One host's part of the meeting. The key, which only readers of the attempt's folder know, is never sent: each
    side proves that it has it by a MAC of what the other has just chosen."""

    def __init__(self, job: Dict[str, Any], folder: str, node: int, wait: Callable[[float, str], None]) -> None:
        """wait: called twice a second with the end of the time and a message; raises OSError if there is no more."""
        self._job, self._folder, self._node, self._wait = job, folder, node, wait
        self._limit_s: float = job.get("meeting_s", _MEETING_S)

    def meet(self) -> Tuple[str, int, str]:
        """(address and port where ranks meet, this host's own address); OSError if not all hosts came in time."""
        path = os.path.join(self._folder, "meeting.json")
        return self._wait_for_hosts(path) if self._node == 0 else self._join_first_host(path)

    def _wait_for_hosts(self, path: str) -> Tuple[str, int, str]:
        nodes = self._job["nodes"]
        with contextlib.ExitStack() as sockets:
            server = sockets.enter_context(socket.socket())
            server.bind(("", 0))
            server.listen(nodes)
            server.setblocking(False)
            port = _free_port()
            write_json(path, {"addresses": _addresses(self._job.get("host")), "port": server.getsockname()[1]})
            until_s = time.monotonic() + self._limit_s
            guests: Dict[socket.socket, _Guest] = {}
            came: Dict[int, str] = {}
            while len(came) < nodes - 1:
                self._wait(until_s, "{} of {} hosts joined in {:.0f} s".format(len(came) + 1, nodes, self._limit_s))
                ready, _, _ = select.select([server, *guests], [], [], POLL_S)
                for each in ready:
                    if each is server:
                        with contextlib.suppress(OSError):
                            connection = sockets.enter_context(server.accept()[0])
                            guests[connection] = _Guest(connection)
                    elif guests[each].read():
                        node = guests[each].check(self._job["key"], nodes)
                        if node is not None:
                            # The guest reached this host by this address, so others can too.
                            came[node] = self._job.get("host") or each.getsockname()[0]
                            guests[each].answer(self._job["key"], came[node], port)
                late_s = time.monotonic() - _GREETING_S
                over = [each for each, guest in guests.items() if guest.is_over or guest.since_s < late_s]
                for connection in [*over, *list(guests)[: max(0, len(guests) - _MAX_GUESTS)]]:
                    guests.pop(connection, None)
                    connection.close()
        address = list(came.values())[-1]
        return address, port, address

    def _join_first_host(self, path: str) -> Tuple[str, int, str]:
        until_s = time.monotonic() + self._limit_s
        tried: Dict[str, str] = {}
        while True:
            self._wait(until_s, "first host not reached in {:.0f} s: {}".format(self._limit_s, tried or "no address"))
            text = read_text(path)
            meeting = json.loads(text) if text else {}
            for address in meeting.get("addresses", ()):
                try:
                    with socket.create_connection((address, meeting["port"]), timeout=_GREETING_S) as host:
                        return (*self._greet(host), host.getsockname()[0])
                except (OSError, ValueError) as error:
                    tried[address] = str(error)
            time.sleep(POLL_S)

    def _greet(self, host: socket.socket) -> Tuple[str, int]:
        with host.makefile("rb") as stream:
            nonce = stream.readline(_MAX_LINE_BYTES).decode().strip()
            own = secrets.token_hex(16)
            greeting = {"node": self._node, "nonce": own, "mac": _mac(self._job["key"], "guest", nonce, self._node)}
            host.sendall((json.dumps(greeting) + "\n").encode())
            said = _parse_fields(stream.readline(_MAX_LINE_BYTES), ("host", str), ("port", int), ("mac", str))
        if not hmac.compare_digest(said["mac"], _mac(self._job["key"], "host", own, said["host"], said["port"])):
            raise ValueError("it belongs to another job")
        return said["host"], said["port"]


class _Guest:
    """A connection that has not proved yet that it is a host of this job. since_s: when it came. is_over: it has been
    answered, or refused, or has left."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._nonce, self._text = connection, secrets.token_hex(16), b""
        self.since_s, self.is_over = time.monotonic(), False
        connection.setblocking(False)
        self._send(self._nonce)

    def read(self) -> bool:
        """Read what has come; True where its greeting is complete."""
        try:
            part = self._connection.recv(_MAX_LINE_BYTES)
        except OSError:
            part = b""
        self._text += part
        self.is_over = not part or len(self._text) > _MAX_LINE_BYTES
        return self._text.endswith(b"\n") and not self.is_over

    def check(self, key: str, nodes: int) -> Optional[int]:
        """The number of the host that this is; None if it does not prove to be one of them."""
        self.is_over = True
        try:
            said = _parse_fields(self._text, ("node", int), ("nonce", str), ("mac", str))
            if not hmac.compare_digest(said["mac"], _mac(key, "guest", self._nonce, said["node"])):
                raise ValueError("it does not have the key of this job")
            if not 0 < said["node"] < nodes:
                raise ValueError("there is no host {}".format(said["node"]))
        except (ValueError, TypeError) as error:
            print("ignored a connection: {}".format(error), file=sys.stderr)
            return None
        self._text = said["nonce"].encode()
        return int(said["node"])

    def answer(self, key: str, host: str, port: int) -> None:
        mac = _mac(key, "host", self._text.decode(), host, port)
        self._send(json.dumps({"host": host, "port": port, "mac": mac}))

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a guest that left is seen when it is read
            self._connection.send((line + "\n").encode())


def _mac(key: str, *parts: object) -> str:
    return hmac.new(key.encode(), json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def _parse_fields(line: bytes, *fields: Tuple[str, type]) -> Dict[str, Any]:
    """The fields of a line of JSON; ValueError if they are not there, or are of other types."""
    try:
        said = json.loads(line.decode("ascii"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(said, dict) or any(type(said.get(name)) is not kind for name, kind in fields):
        raise ValueError("no greeting: {!r}".format(line[:80]))
    return {name: said[name] for name, _ in fields}


def _addresses(host: Optional[str]) -> List[str]:
    """Addresses at which other hosts may reach this one, the likeliest first."""
    if host:
        return [host]
    found = [socket.gethostname()]
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        # A UDP connect sends nothing; it only selects the local address.
        probe.connect(("10.255.255.255", 9))
        found.append(probe.getsockname()[0])
    except OSError:
        pass
    finally:
        probe.close()
    return [*dict.fromkeys(found), "127.0.0.1"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def find_interface(address: str) -> Optional[str]:
    """The name of the network interface that has an IPv4 address."""
    try:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                try:
                    # SIOCGIFADDR of netdevice(7): the address begins at byte 20.
                    answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
                except OSError:
                    continue
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    except (ImportError, OSError):
        pass
    return None
