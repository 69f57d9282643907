"""A store's `seals.jsonl`: one chained line for each attempt that was sealed in it, so that one that is gone is missed.

To merge stores by copying their folders stays possible: a journal says nothing of attempts that other stores sealed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from tunemark.results.seal import SEAL_FILE
from tunemark.results.stored_file import read_stored_file
from tunemark_worker.record_chain import add_link, check_link, first_link

JOURNAL_FILE = "seals.jsonl"
_NOTED_FILES = (SEAL_FILE, "result.json")
# Instead of a file's name: the attempt's folder was removed by its owner.
_REMOVED = "removed"


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line: a file of an attempt's folder, written into the store. journal: the name of this journal, in every line.
    run, attempt: names of folders."""

    journal: str
    run: str = ""
    attempt: str = ""
    file: str = ""
    sha256: str = ""
    chain: str = ""


class SealJournal:
    """The journal of the store in a folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / JOURNAL_FILE

    @functools.cached_property
    def content(self) -> JournalContent:
        """What it says now; read once."""
        return read_journal(self._path)

    def name(self) -> str:
        """The journal's own name; it is begun if there is none yet. OSError if it cannot be."""
        if not self.content.name:
            with _open_locked(self._path) as stream:
                if not stream.read(1):
                    _append(stream, JournalEntry(journal=secrets.token_hex(8)), first_link(b"", JOURNAL_FILE))
            self.__dict__.pop("content", None)
        return self.content.name

    def add(self, folder: Path, file: str, content: bytes) -> None:
        """Note a file of an attempt that is about to be written. OSError if it cannot be noted."""
        self._add(folder, file, hashlib.sha256(content).hexdigest())

    def add_removed(self, folder: Path) -> None:
        """Note that an attempt is about to be removed on purpose. OSError if it cannot be noted."""
        self._add(folder, _REMOVED, "")

    def _add(self, folder: Path, file: str, sha256: str) -> None:
        name = self.name()
        with _open_locked(self._path) as stream:
            text = stream.read()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                stream.truncate(len(whole))  # a line that a full disk or a kill cut off
            entries = [entry for line in whole.splitlines() if (entry := _decode(line))]
            link = entries[-1].chain.encode() if entries else first_link(b"", JOURNAL_FILE)
            more = JournalEntry(journal=name, run=folder.parent.name, attempt=folder.name, file=file, sha256=sha256)
            _append(stream, more, link)
        self.__dict__.pop("content", None)


class JournalContent(msgspec.Struct, frozen=True):
    """What a journal says. name: "" if there is none. problem: what is wrong with its chain, else "". files: by (run,
    attempt, file) the hashes that it was noted with, oldest first."""

    name: str = ""
    problem: str = ""
    files: dict[tuple[str, str, str], list[str]] = {}

    @property
    def attempts(self) -> set[tuple[str, str]]:
        """(run, attempt) of those that must be there: noted, and not removed on purpose."""
        return {key[:2] for key in self.files} - {key[:2] for key in self.files if key[2] == _REMOVED}

    def check(self, folder: Path, journal: str) -> Iterator[str]:
        """What of an attempt is not as it was noted. journal: the name of the one that its seal says it is noted in."""
        place = folder.parent.name, folder.name
        for name in _NOTED_FILES:
            noted = self.files.get((*place, name))
            try:
                found = hashlib.sha256(read_stored_file(folder / name)).hexdigest()
            except OSError:
                found = ""
            if noted is None:
                if found and journal and journal == self.name:
                    yield f"{name} is not in {JOURNAL_FILE}"
            # The one before is there still if the command was killed between noting and writing.
            elif found not in noted[-2:] and not (name == SEAL_FILE and not found):
                yield f"{name} is {'not as it was noted in ' + JOURNAL_FILE if found else 'missing'}"


def read_journal(path: Path) -> JournalContent:
    """The content of a journal; empty if there is none."""
    try:
        lines = read_stored_file(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return JournalContent()
    except OSError as error:
        return JournalContent(problem=f"{JOURNAL_FILE} cannot be read: {error.strerror or error}")
    link = first_link(b"", JOURNAL_FILE)
    name = problem = ""
    files: dict[tuple[str, str, str], list[str]] = {}
    for number, line in enumerate(lines, 1):
        following = check_link(link, line)
        entry = _decode(line)
        if following is None or entry is None:
            problem = problem or f"{JOURNAL_FILE}, line {number} does not follow the one before"
        link = following or b""
        if entry is None:
            continue
        name = name or entry.journal
        if entry.attempt:
            files.setdefault((entry.run, entry.attempt, entry.file), []).append(entry.sha256)
    return JournalContent(name, problem, files)


@contextlib.contextmanager
def _open_locked(path: Path) -> Iterator[IO[bytes]]:
    """The file, which no other process writes meanwhile where the file system has locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as stream:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # absent on Windows

            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        yield stream


def _append(stream: IO[bytes], entry: JournalEntry, link: bytes) -> None:
    line, _ = add_link(link, _encode(entry))
    if os.write(stream.fileno(), line) != len(line):
        raise OSError(f"no room for a line of {JOURNAL_FILE}")


def _encode(entry: JournalEntry) -> bytes:
    fields = {name: value for name, value in msgspec.to_builtins(entry).items() if name != "chain"}
    return msgspec.json.encode(fields) + b"\n"


def _decode(line: bytes) -> JournalEntry | None:
    try:
        return msgspec.json.decode(line, type=JournalEntry)
    except msgspec.DecodeError:
        return None
