"""The token file as a witness of what was counted: only while it is byte by byte what the run was given."""

from __future__ import annotations

import functools
from pathlib import Path

from tunemark.data import read_token_file
from tunemark.errors import TunemarkError
from tunemark.results.measurement import Measurement
from tunemark.results.token_recount import TokenDocuments, recount_tokens
from tunemark_worker.contract import TokenFile
from tunemark_worker.file_hash import hash_file


def read_documents(file: TokenFile) -> TokenDocuments | None:
    """The token file's documents; None if it is missing or has changed."""
    try:
        if find_token_hash(file) != file.sha256:
            return None
        tokens = read_token_file(Path(file.path))
    except (OSError, ValueError, TunemarkError):
        return None
    return TokenDocuments(offsets=tokens.offsets.tolist(), trained=tokens.trained.data, ids=tokens.ids)


def find_token_hash(file: TokenFile) -> str | None:
    """The SHA-256 of the token file as it is now; None if it cannot be read."""
    try:
        state = Path(file.path).stat()
        return _hash(file.path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    except OSError:
        return None


def recount_all(measurement: Measurement, documents: TokenDocuments) -> tuple[int, int, int, int]:
    """(steps, slots, content tokens, trained tokens) of all recorded steps, by the token file."""
    steps = measurement.step_count
    return (steps, *recount_tokens(documents, measurement.assignment, 0, steps))


@functools.lru_cache(maxsize=64)
def _hash(path: str, *state: int) -> str:
    # A command reads many runs of few token files; a changed one has another time of change.
    with open(path, "rb") as file:
        return hash_file(file)
