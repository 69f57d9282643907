"""The interpreters that tunemark has made for trainers, one folder each in the user's data folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunemark.plugin.descriptors import Trainer

# In an environment's folder, written last: what is in it. A folder without it was not finished.
ENVIRONMENT_FILE = "tunemark.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledEnvironment:
    """An environment that is complete. versions: of its distributions, by name. requirements: what it was made of."""

    python: str
    versions: Mapping[str, str]
    requirements: tuple[str, ...]


def data_folder() -> Path:
    """$TUNEMARK_DATA, else `tunemark` in $XDG_DATA_HOME or in ~/.local/share."""
    if folder := os.environ.get("TUNEMARK_DATA"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_DATA_HOME"):
        return Path(folder) / "tunemark"
    return Path.home() / ".local" / "share" / "tunemark"


def environment_folder(trainer: Trainer) -> Path:
    return data_folder() / "trainers" / trainer.name


def find_environment(trainer: Trainer) -> InstalledEnvironment | None:
    """The trainer's own environment; None if there is none, or none that was finished."""
    folder = environment_folder(trainer)
    python = folder / "bin" / "python"
    try:
        written = json.loads((folder / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
        versions, requirements = dict(written["versions"]), tuple(written["requirements"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not os.access(python, os.X_OK):
        return None
    return InstalledEnvironment(python=str(python), versions=versions, requirements=requirements)
