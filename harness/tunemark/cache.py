"""The folder of tunemark's cache, whose contents can always be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$TUNEMARK_CACHE, else `tunemark` in $XDG_CACHE_HOME or in ~/.cache."""
    if folder := os.environ.get("TUNEMARK_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "tunemark"
    return Path.home() / ".cache" / "tunemark"
