"""The Hugging Face hub, asked only where it can be reached: its library repeats a request for 23 s before giving up."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

# Seconds to connect; a network that needs longer for this alone downloads no model.
_CONNECT_S = 5.0


@contextmanager
def hub_or_its_cache() -> Iterator[None]:
    """Let the libraries of the hub use their caches alone, as with HF_HUB_OFFLINE=1, where the hub cannot be reached
    now."""
    import huggingface_hub.constants  # heavy, as its users are

    if find_hub_obstacle(huggingface_hub.constants.ENDPOINT) is None:
        yield
        return
    # `datasets` copies the flag when it is first imported, which may have been before.
    flags: list[Any] = [
        huggingface_hub.constants,
        *([sys.modules["datasets.config"]] if "datasets.config" in sys.modules else []),
    ]
    before = [flag.HF_HUB_OFFLINE for flag in flags]
    for flag in flags:
        flag.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for flag, was in zip(flags, before, strict=True):
            flag.HF_HUB_OFFLINE = was


@functools.cache
def find_hub_obstacle(endpoint: str) -> str | None:
    """Why the hub cannot be reached from here, None where it can or where a proxy would have to be asked; found out
    once in each process. endpoint: the hub's URL."""
    address = urlsplit(endpoint)
    if address.scheme in getproxies() or not address.hostname or os.environ.get("HF_HUB_OFFLINE"):
        return None
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached: {error.strerror or error}"
    return None


def explain_hub_failure(error: Exception, *, limit: int = 300) -> str:
    """Why something did not come from the hub: that it cannot be reached, else what its library said."""
    import huggingface_hub.constants

    obstacle = find_hub_obstacle(huggingface_hub.constants.ENDPOINT)
    return obstacle or f"{type(error).__name__}: {' '.join(str(error).split())[:limit]}"
