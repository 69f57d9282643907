"""Join the job's process group through the store that the launcher names, which nobody else can reach or guess.

Ranks of one host share a file that has no name in any folder, so that no port is opened. Ranks of several hosts share
torch's TCPStore on rank 0's host: it holds bytes, nothing in it is unpickled, and its keys begin with the job's secret.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import timedelta
from typing import Any, Dict

import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore, TCPStore  # type: ignore[attr-defined]  # not in its __all__

from tunemark_worker.contract import RANK_STORE_VARIABLE

# Seconds that ranks wait for each other to join: torch's own limit for gloo.
_JOIN_S = 1800


def join_process_group(backend: str) -> None:
    """Join the process group of all ranks. A launcher that names no store has set the variables of torchrun."""
    words = os.environ.get(RANK_STORE_VARIABLE)
    if not words:
        dist.init_process_group(backend)
        return
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=_open_store(json.loads(words), rank, ranks), rank=rank, world_size=ranks)


def _open_store(place: Dict[str, Any], rank: int, ranks: int) -> Any:
    if "path" in place:
        return FileStore(place["path"], ranks)
    return PrefixStore(place["key"], _open_tcp_store(place["host"], place["port"], rank == 0))


def _open_tcp_store(host: str, port: int, is_first: bool) -> Any:
    """The store at this address; the first rank serves it, on this address alone if its torch can do that."""
    patience = timedelta(seconds=_JOIN_S)
    if is_first:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        try:
            store = TCPStore(host, port, None, True, patience, wait_for_workers=False, master_listen_fd=server.fileno())
            server.detach()
            return store
        except TypeError:  # torch before 2.0 knows no such argument, and listens on every address
            server.close()
    return TCPStore(host, port, None, is_first, patience, wait_for_workers=False)
