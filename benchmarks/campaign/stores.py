"""Stores that were cut, mixed up, edited, or made by a stranger: every command that reads them names what is wrong,
and the run beside it is read as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaign.cases import Outcome, Trial, add_case, ask
from campaign.made_store import two_plans, write_attempt
from tunemark.results import Store

Hurt = Callable[[Path], None]
# Of every command that reads stores, which in this order costs the least.
_READERS = (("verify", "--json"), ("report", "--json"), ("report",), ("list", "runs"), ("show",))
_ESCAPES = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u202egpj.exe"


def _add(name: str, what: str, hurt: Hurt, *states: str, kind: str = "stored runs", is_ended: bool = True) -> None:
    """A store of two runs, one of whose attempts is hurt. states: which of verify's may follow."""

    def run(trial: Trial) -> Outcome:
        plans = two_plans()
        root = trial.folder / "runs"
        store = Store(root)
        folder = write_attempt(store, plans[0], "attempt-0", is_ended=is_ended)
        write_attempt(store, plans[1], "attempt-0")
        hurt(folder)
        return read_everything(trial, states, good_run=plans[1].run_id)

    add_case(name, kind, what, run, cheap=True)


def read_everything(trial: Trial, states: Sequence[str], good_run: str) -> Outcome:
    """Read the trial's store, of which one run is hurt, with every command. states: what `verify` may say of that
    run."""
    root = trial.folder / "runs"
    problems: list[str] = []
    seen = ""
    for words in _READERS[: 2 if trial.is_brief else None]:
        where = f"{root}:{good_run}" if words == ("show",) else str(root)
        answer = ask(*words, where)
        problems += answer.problems
        if words[:1] == ("verify",) and answer.code is not None:
            rows = [json.loads(line) for line in answer.out.splitlines()]
            found = {row["state"] for row in rows if not row["place"].endswith(good_run)}
            why = [text for row in rows if not row["place"].endswith(good_run) for text in row["problems"]]
            seen = f"{' and '.join(sorted(found)) or 'nothing'}: {why[0] if why else 'no problem'}"
            if not found <= set(states):
                problems.append(f"verify says {sorted(found)}, not {' or '.join(states)}")
            if {row["state"] for row in rows if row["place"].endswith(good_run)} != {"whole"}:
                problems.append("verify accuses the run beside it")
        if words == ("report", "--json") and answer.code is not None:
            good = [row for row in map(json.loads, answer.out.splitlines()) if row.get("run_id") == good_run]
            if [row["status"] for row in good] != ["ok"]:
                problems.append("the run beside it is not read")
    return Outcome(seen=seen, problems=tuple(dict.fromkeys(problems)))


# -- files that were cut or mixed up


def _change(name: str, edit: Callable[[bytes], bytes]) -> Hurt:
    def hurt(folder: Path) -> None:
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return hurt


def _change_lines(name: str, edit: Callable[[list[bytes]], list[bytes]]) -> Hurt:
    return _change(name, lambda content: b"".join(edit(content.splitlines(keepends=True))))


def _change_object(name: str, **values: Any) -> Hurt:
    """Set fields of an object, or of its field `run`."""

    def edit(content: bytes) -> bytes:
        raw = json.loads(content)
        for key, value in values.items():
            (raw["run"] if key in raw.get("run", {}) else raw)[key] = value
        return json.dumps(raw).encode()

    return _change(name, edit)


def _replace(name: str, old: str, new: str) -> Hurt:
    return _change(name, lambda content: re.sub(old.encode(), new.encode(), content))


def _reorder(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[7], lines[6], *lines[8:]]


_RECORDS, _ATTEMPT, _PLAN = "records.0.jsonl", "attempt.json", "plan.json"

_add(
    "records-half-line", "the last line of the records is half written", _change(_RECORDS, lambda c: c[:-30]), "touched"
)
_add(
    "records-half-line-killed",
    "the same, of a command that was killed before it sealed",
    _change(_RECORDS, lambda c: c[:-30]),
    "unsealed",
    is_ended=False,
)
_add("records-cut", "half of the records are missing", _change_lines(_RECORDS, lambda r: r[: len(r) // 2]), "touched")
_add("records-empty", "the records are empty", _change(_RECORDS, lambda c: b""), "touched")
_add("records-gone", "the records of one rank are gone", lambda folder: (folder / _RECORDS).unlink(), "touched")
_add("records-reordered", "two lines of the records are swapped", _change_lines(_RECORDS, _reorder), "touched")
_add(
    "records-doubled",
    "a line of the records is there twice",
    _change_lines(_RECORDS, lambda r: [*r[:9], *r[8:]]),
    "touched",
)
_add(
    "records-zeros",
    "a crash of the machine left zeros at the end of the records",
    _change(_RECORDS, lambda c: c + bytes(4096)),
    "touched",
)
_add("records-dos", "the records' lines end as on Windows", _replace(_RECORDS, r"\n", r"\r\n"), "touched")
_add(
    "records-kind",
    "a kind of record that this version does not know",
    _replace(_RECORDS, '"kind":"load"', '"kind":"l"'),
    "touched",
)
_add(
    "records-huge-numbers",
    "counts of tokens of 400 digits",
    _replace(_RECORDS, r'"slots":\d+', '"slots":1' + "0" * 400),
    "touched",
)
_add(
    "records-infinite",
    "instants that are no numbers",
    _replace(_RECORDS, r'"instant_s":1\d\d', '"instant_s":1e999'),
    "touched",
)
_add(
    "records-negative", "negative counts of tokens", _replace(_RECORDS, r'"content":(\d+)', r'"content":-\1'), "touched"
)
_add("records-clock-back", "a clock that goes back", _replace(_RECORDS, r'"instant_s":105', '"instant_s":5'), "touched")
_add("attempt-empty", "attempt.json is empty", _change(_ATTEMPT, lambda c: b""), "touched")
_add("attempt-list", "attempt.json is a list", _change(_ATTEMPT, lambda c: b"[1, 2]"), "touched")
_add("attempt-gone", "attempt.json is gone", lambda folder: (folder / _ATTEMPT).unlink(), "touched")
_add("attempt-future", "attempt.json is of a schema of the future", _change_object(_ATTEMPT, schema=99), "touched")
_add("attempt-texts", "texts where attempt.json has numbers", _change_object(_ATTEMPT, chips="many"), "touched")
_add("plan-gone", "plan.json is gone", lambda folder: (folder / _PLAN).unlink(), "touched")
_add("plan-future", "plan.json has fields of the future", _change_object(_PLAN, warp=9), "touched")
_add("plan-billions", "plan.json says a billion processes", _change_object(_PLAN, processes=10**9), "touched")
_add(
    "seal-future", "the seal is of a version of the future", _change_object("seal.json", schema=99, seals={}), "touched"
)
_add("seal-gone", "the seal is gone", lambda folder: (folder / "seal.json").unlink(), "touched")
_add(
    "journal-garbage",
    "the store's list of seals is garbage",
    lambda folder: (folder.parents[1] / "seals.jsonl").write_bytes(b"\x00\xff garbage\n" * 9),
    "touched",
    "whole",
)
_add(
    "journal-gone",
    "the store's list of seals is gone",
    lambda folder: (folder.parents[1] / "seals.jsonl").unlink(),
    "whole",
    "unsealed",
)
_add(
    "telemetry-garbage",
    "the samples of the device are garbage",
    _change("telemetry.jsonl", lambda c: b"\xff{]\n" * 99),
    "touched",
)
_add(
    "attempt-copied",
    "an attempt's folder was copied",
    lambda folder: shutil.copytree(folder, folder.with_name("attempt-5")) and None,
    "touched",
    "whole",
)
_add(
    "records-of-another-rank",
    "the records of two ranks are swapped",
    lambda folder: _swap(folder, "records.0.jsonl", "records.1.jsonl"),
    "touched",
)


def _swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "aside")
    (folder / other).rename(folder / one)
    (folder / "aside").rename(folder / other)


# -- what a stranger puts into a store


def _put(name: str, make: Callable[[Path], Any]) -> Hurt:
    def hurt(folder: Path) -> None:
        path = folder / name
        path.unlink()
        make(path)

    return hurt


def _put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is limited to 108 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _add_hostile(name: str, what: str, hurt: Hurt, *states: str) -> None:
    _add(name, what, hurt, *(states or ("touched",)), kind="strangers' stores")


for _name in (_RECORDS, _ATTEMPT, _PLAN, "seal.json", "telemetry.jsonl"):
    _short = _name.partition(".")[0]
    _add_hostile(f"pipe-{_short}", f"{_name} is a pipe that nobody writes to", _put(_name, os.mkfifo))
    _add_hostile(f"zeros-{_short}", f"{_name} is a link to /dev/zero", _put(_name, lambda p: p.symlink_to("/dev/zero")))
    _add_hostile(
        f"nested-{_short}", f"{_name} is JSON of 100,000 levels", _put(_name, lambda p: p.write_text("[" * 10**5))
    )
_add_hostile("link-out", "attempt.json is a link to /etc/passwd", _put(_ATTEMPT, lambda p: p.symlink_to("/etc/passwd")))
_add_hostile("link-loop", "attempt.json is a link to itself", _put(_ATTEMPT, lambda p: p.symlink_to(p.name)))
_add_hostile("folder-for-file", "attempt.json is a folder", _put(_ATTEMPT, Path.mkdir))
_add_hostile("socket-for-file", "attempt.json is a socket", _put(_ATTEMPT, _put_socket))
_add_hostile(
    "journal-pipe",
    "the store's list of seals is a pipe",
    lambda folder: _put("seals.jsonl", os.mkfifo)(folder.parents[1]),
    "touched",
    "whole",
)
_add_hostile("model-escapes", "the model's name has commands for a terminal", _change_object(_ATTEMPT, model=_ESCAPES))
_add_hostile(
    "evidence-escapes",
    "an error's text has commands for a terminal",
    _change_object(_ATTEMPT, status="error", reason=_ESCAPES, evidence=_ESCAPES),
)
_add_hostile(
    "folder-escapes",
    "a folder's name has commands for a terminal",
    lambda folder: folder.rename(folder.with_name("a\x1b[2J\u202e")) and None,
)
_add_hostile("field-escapes", "a field's name has commands for a terminal", _change_object(_ATTEMPT, run={_ESCAPES: 1}))
_add_hostile(
    "code-planted", "the store brings code: sitecustomize.py under .code", lambda folder: _plant_code(folder), "whole"
)


def _plant_code(folder: Path) -> None:
    code = folder.parents[1] / ".code" / ("0" * 16)
    code.mkdir(parents=True)
    (code / "sitecustomize.py").write_text("raise SystemExit('this ran')\n")


def _many_folders(trial: Trial) -> Outcome:
    plans = two_plans()
    root = trial.folder / "runs"
    write_attempt(Store(root), plans[1], "attempt-0")
    for number in range(2000):
        (root / f"run-{number:016x}").mkdir()
    return read_everything(trial, (), plans[1].run_id)


add_case("many-folders", "strangers' stores", "two thousand empty folders of runs", _many_folders)
