"""How the hosts of one job find each other: the first host listens, and says where in the attempt's folder."""

from __future__ import annotations

import json
import os
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


class HostRendezvous:
    """One host's part of the meeting."""

    def __init__(self, job: Dict[str, Any], folder: str, node: int, wait: Callable[[float, str], None]) -> None:
        """wait: called twice a second with the end of the time and a message; raises OSError if there is no more."""
        self._job, self._folder, self._node, self._wait = job, folder, node, wait
        self._limit_s: float = job.get("meeting_s", _MEETING_S)

    def meet(self) -> Tuple[str, int, str]:
        """(rendezvous address, rendezvous port, this host's own address); OSError if not all hosts came in time."""
        path = os.path.join(self._folder, "meeting.json")
        return self._wait_for_hosts(path) if self._node == 0 else self._join_first_host(path)

    def _wait_for_hosts(self, path: str) -> Tuple[str, int, str]:
        server = socket.socket()
        server.bind(("", 0))
        server.listen(self._job["nodes"])
        port = _free_port()
        addresses = _addresses(self._job.get("host"))
        write_json(path, {"key": self._job["key"], "addresses": addresses, "port": server.getsockname()[1]})
        until_s = time.monotonic() + self._limit_s
        came: Dict[int, str] = {}
        address = ""
        while len(came) < self._job["nodes"] - 1:
            words = "{} of {} hosts joined in {:.0f} s"
            self._wait(until_s, words.format(len(came) + 1, self._job["nodes"], self._limit_s))
            server.settimeout(POLL_S)
            try:
                guest, _ = server.accept()
            except socket.timeout:
                continue
            guest.settimeout(10)
            try:
                greeting = json.loads(guest.makefile().readline())
                if greeting["key"] != self._job["key"]:
                    raise ValueError("it belongs to another job")
                # The guest reached this host by this address, so others can too.
                address = self._job.get("host") or guest.getsockname()[0]
                guest.sendall((json.dumps({"host": address, "port": port}) + "\n").encode())
                came[int(greeting["node"])] = guest.getpeername()[0]
            except (OSError, ValueError, KeyError) as error:
                print("ignored a connection: {}".format(error), file=sys.stderr)
            finally:
                guest.close()
        server.close()
        return address, port, address

    def _join_first_host(self, path: str) -> Tuple[str, int, str]:
        until_s = time.monotonic() + self._limit_s
        tried: Dict[str, str] = {}
        while True:
            self._wait(until_s, "first host not reached in {:.0f} s: {}".format(self._limit_s, tried or "no address"))
            text = read_text(path)
            meeting = json.loads(text) if text else {}
            for address in meeting.get("addresses", ()) if meeting.get("key") == self._job["key"] else ():
                try:
                    with socket.create_connection((address, meeting["port"]), timeout=5) as host:
                        host.sendall((json.dumps({"key": self._job["key"], "node": self._node}) + "\n").encode())
                        answer = json.loads(host.makefile().readline())
                        return answer["host"], answer["port"], host.getsockname()[0]
                except (OSError, ValueError) as error:
                    tried[address] = str(error)
            time.sleep(POLL_S)


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
