"""Seals: what an attempt's files were when it ended, by which a later reader sees whether they were touched.

An attempt ends with `seal.json`, the SHA-256 of each of its files; the code and the token file are named by theirs. The
lines of its records are chained as they are written. A store's `seals.jsonl` chains the seals, so that an attempt that
was removed is missed. None of it holds a secret: it shows accidents, edits and mixed-up files. Against somebody who
computes all hashes anew only a signature of `seal.json` helps, and the rules of physics.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunemark.experiment.run_spec import hash_spec
from tunemark.results.stored_file import read_stored_file
from tunemark_worker.record_chain import check_link, first_link, has_link

SEAL_FILE = "seal.json"
SealState = Literal["whole", "touched", "unsealed"]
# Files that are written after the seal: derived, signed, or the seal itself.
_UNSEALED_FILES = frozenset({SEAL_FILE, "seal.json.sig", "result.json"})
_ATTEMPT_FILE, _PLAN_FILE = "attempt.json", "plan.json"
# Beginnings of names of files that are being written.
_TEMPORARY = "."
# Problems that are listed; the first ones say enough.
_MOST_PROBLEMS = 5
_RECORDS = re.compile(r"records\.(\d+)(?:\.life\d+)?\.jsonl")


class SealedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of an attempt when it was sealed."""

    sha256: str
    bytes: int


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of seal.json. attempt_before: the hash of attempt.json until the seal was written, which it still has
    if the command was killed in that moment. may_grow: a lost host may still have written to its files. token_sha256:
    of the token file when the attempt had ended, null if it was gone. recounted: (steps, slots, content tokens,
    trained tokens) that the token file has in all recorded steps, null if unknown. sha256: of all other fields."""

    run_id: str
    attempt: str
    files: dict[str, SealedFile]
    attempt_before: str | None
    may_grow: bool
    code_sha256: str
    token_sha256: str | None
    recounted: tuple[int, int, int, int] | None
    journal: str
    sha256: str = ""
    schema: int = 1

    def encode(self) -> bytes:
        """The content of the file, with its own hash."""
        bare = msgspec.structs.replace(self, sha256="")
        return _encode(msgspec.structs.replace(self, sha256=_hash(_encode(bare))))


@dataclass(frozen=True, kw_only=True, slots=True)
class SealCheck:
    """Whether an attempt's files are what they were. problems: what was touched; why it is unsealed. seal: None unless
    it could be read."""

    state: SealState
    problems: tuple[str, ...] = ()
    seal: Seal | None = None

    def with_problems(self, problems: Sequence[str]) -> SealCheck:
        """The same of an attempt of which more was found to be touched."""
        known = self.problems if self.state == "touched" else ()
        return replace(self, state="touched", problems=(*known, *problems)[:_MOST_PROBLEMS])


def make_seal(
    folder: Path,
    attempt_text: str,
    *,
    run_id: str,
    code_sha256: str,
    token_sha256: str | None,
    recounted: tuple[int, int, int, int] | None,
    may_grow: bool,
    journal: str,
) -> Seal:
    """The seal of an attempt that has ended. attempt_text: what attempt.json will hold. OSError if a file cannot be
    read."""
    files = {path.name: _describe(read_stored_file(path)) for path in _sealed_files(folder)}
    before = files.get(_ATTEMPT_FILE)
    files[_ATTEMPT_FILE] = _describe(attempt_text.encode())
    return Seal(
        run_id=run_id,
        attempt=folder.name,
        files=dict(sorted(files.items())),
        attempt_before=before.sha256 if before else None,
        may_grow=may_grow,
        code_sha256=code_sha256,
        token_sha256=token_sha256,
        recounted=recounted,
        journal=journal,
    )


def check_seal(folder: Path) -> SealCheck:
    """Compare an attempt's files with its seal, its records with their chain, and its names with each other."""
    try:
        attempt = _read_object(folder / _ATTEMPT_FILE)
    except FileNotFoundError:
        return _check_without_attempt(folder)
    except (OSError, ValueError, RecursionError) as error:
        return SealCheck(state="touched", problems=(f"attempt.json cannot be read: {error}",))
    problems = [*_find_name_problems(folder, attempt), *_find_chain_problems(folder)]
    seal = None
    is_ended = attempt.get("sealed") is True
    try:
        content = read_stored_file(folder / SEAL_FILE)
        seal = _decode(content)
    except FileNotFoundError:
        if is_ended:
            problems.insert(0, "seal.json is missing")
    except (OSError, ValueError, RecursionError) as error:
        problems.insert(0, f"seal.json cannot be read: {error}")
    else:
        found, is_ended = _find_file_problems(folder, seal)
        problems[:0] = found
    if problems:
        return SealCheck(state="touched", problems=tuple(problems[:_MOST_PROBLEMS]), seal=seal)
    if is_ended:
        return SealCheck(state="whole", seal=seal)
    version = "it was measured by a version without seals, or its command ended before it did"
    return SealCheck(state="unsealed", problems=(version,), seal=None)


def _check_without_attempt(folder: Path) -> SealCheck:
    """Of an attempt without attempt.json: touched, unless its seal says that a broken disk had taken none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        seal = _decode(read_stored_file(folder / SEAL_FILE))
        if seal.attempt_before is None and (seal.attempt, seal.run_id) == (folder.name, _run_id_of(folder)):
            return SealCheck(state="unsealed", problems=("the disk took no attempt.json",), seal=None)
    return SealCheck(state="touched", problems=("attempt.json is missing",))


def worst_state(states: Iterable[SealState]) -> SealState:
    """The state of all together."""
    found = set(states)
    return "touched" if "touched" in found else "unsealed" if "unsealed" in found or not found else "whole"


def _find_file_problems(folder: Path, seal: Seal) -> tuple[list[str], bool]:
    """(what differs from the seal, whether the attempt's end was stored)."""
    problems = []
    is_ended = True
    if (seal.attempt, seal.run_id) != (folder.name, _run_id_of(folder)):
        problems.append(f"the seal is of attempt {seal.attempt} of run {seal.run_id}")
    present = {path.name: path for path in _sealed_files(folder)}
    for name, sealed in seal.files.items():
        path = present.pop(name, None)
        if path is None:
            problems.append(f"{name} is missing")
            continue
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name} is no file of its own")
            continue
        try:
            content = read_stored_file(path)
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror or error}")
            continue
        if seal.may_grow and name != _ATTEMPT_FILE:
            content = content[: sealed.bytes]
        if _describe(content) == sealed:
            continue
        if name == _ATTEMPT_FILE and _hash(content) == seal.attempt_before:
            is_ended = False
            continue
        problems.append(f"{name} has changed")
    problems += [] if seal.may_grow else [f"{name} was added" for name in present]
    return problems, is_ended


def _find_name_problems(folder: Path, attempt: dict[str, Any]) -> Iterator[str]:
    """What the folder, the plan and attempt.json say differently of the run."""
    named = _run_id_of(folder)
    spec, run = attempt.get("spec"), attempt.get("run")
    if isinstance(spec, dict):
        if (found := hash_spec(spec)) != named:
            yield f"attempt.json has the settings of run {found}"
        for name, value in spec.items():
            stored = _STORED_NAMES.get(name, name)
            if isinstance(run, dict) and stored in run and run[stored] != value:
                yield f"attempt.json says {stored} {run[stored]!r} and {name} {value!r}"
    if isinstance(run, dict) and run.get("run_id") != named:
        yield f"attempt.json is of run {run.get('run_id')}"
    try:
        plan = _read_object(folder / _PLAN_FILE)
    except FileNotFoundError:
        return  # a full disk took none; what has a seal lists it
    except (OSError, ValueError, RecursionError) as error:
        yield f"plan.json cannot be read: {error}"
        return
    if plan.get("run_id") != named:
        yield f"plan.json is of run {plan.get('run_id')}"
    if plan.get("attempt") != folder.name:
        yield f"plan.json is of attempt {plan.get('attempt')}: the folder was copied or renamed"


# Settings that a run's identity has under another name.
_STORED_NAMES = {
    "strategy": "strategy_requested", "steps": "steps_requested", "warmup": "warmup_requested",
    "budget": "budget_s", "window": "window_s",
}  # fmt: skip


def _find_chain_problems(folder: Path) -> Iterator[str]:
    """The first line of each file of records that does not follow the one before. A last line that was cut off by a
    kill is none."""
    try:
        plan = read_stored_file(folder / _PLAN_FILE)
    except OSError:
        return
    for path in sorted(folder.glob("records.*.jsonl")):
        if _RECORDS.fullmatch(path.name) is None or path.is_symlink() or not path.is_file():
            yield f"{path.name} is no file of records"
            continue
        with open(path, "rb") as file:
            link = first_link(plan, path.name)
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                if number == 1 and not has_link(line[:-1]):
                    break  # of a version that did not chain
                following = check_link(link, line[:-1])
                if following is None:
                    yield f"{path.name}, line {number} does not follow the one before"
                    break
                link = following


def _sealed_files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name not in _UNSEALED_FILES and not p.name.startswith(_TEMPORARY)]


def _run_id_of(folder: Path) -> str:
    return folder.parent.name.rpartition("-")[2]


def _read_object(path: Path) -> dict[str, Any]:
    found = msgspec.json.decode(read_stored_file(path))
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _decode(content: bytes) -> Seal:
    """The seal of a file's content; ValueError unless it is exactly what was written."""
    seal = msgspec.json.decode(content, type=Seal)
    if seal.encode() != content:
        raise ValueError("it is not as it was written")
    return seal


def _describe(content: bytes) -> SealedFile:
    return SealedFile(sha256=_hash(content), bytes=len(content))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _encode(seal: Seal) -> bytes:
    return msgspec.json.format(msgspec.json.encode(seal), indent=1) + b"\n"
