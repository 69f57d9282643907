"""Runs of two users of one machine at once: one after the other, whatever the first one's files look like."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys

from campaign.cases import NeverCame, NotHere, Outcome, Trial, add_case, wait_until
from campaign.commands import TOY_RUN, Place, wait_for

# The second user: one that every system has, and that owns nothing.
_OTHER = "nobody"


def _two_users(trial: Trial, umask: int) -> Outcome:
    """Root measures, and meanwhile another user starts a run on the same device."""
    if os.geteuid() != 0:
        raise NotHere("needs root")
    other = pwd.getpwnam(_OTHER)
    probe = [sys.executable, "-c", "import tunemark.cli.main, torch"]
    done = subprocess.run(probe, user=other.pw_uid, extra_groups=[], capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise NotHere(f"other users may not run {sys.executable}: {done.stderr.strip().splitlines()[-1:]}")
    trial.folder.chmod(0o711)
    locks = trial.folder / "locks"
    locks.mkdir()
    locks.chmod(0o1777)
    places = []
    for owner in (0, other.pw_uid):
        folder = trial.folder / f"user-{owner}"
        folder.mkdir()
        places.append(Place(folder))
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, owner)
    first, second = places
    words = (*TOY_RUN, "--steps", "60", "--repeats", "1")

    def variables(place: Place) -> dict[str, str | None]:
        return {"TUNEMARK_LOCKS": str(locks), "HOME": str(place.folder), "USER": None, "LOGNAME": None}

    commands = [first.start(words, variables(first), umask=umask)]

    def has_begun() -> bool:
        if commands[0].poll() is not None:
            raise NeverCame(f"the first run ended: {wait_for(commands[0]).last_words}")
        return any(b'"kind":"step"' in path.read_bytes() for path in first.work.glob("runs/*/*/records.0.jsonl"))

    wait_until(has_begun, "the first run's first step", 240)
    commands.append(second.start(words, variables(second), user=other.pw_uid))
    ended = [wait_for(command) for command in commands]
    problems = [
        word for place, each in zip(places, ended, strict=True) for word in place.find_problems(each, (0, 1, 3))
    ]
    spans = []
    for place, each in zip(places, ended, strict=True):
        rows = [json.loads(line) for line in each.out.splitlines() if line.startswith("{")]
        if [row["status"] for row in rows] != ["ok"]:
            problems.append(f"no row that is ok: {each.last_words}")
            continue
        (path,) = place.work.glob("runs/*/*/records.0.jsonl")
        instants = [json.loads(line)["instant_s"] for line in path.read_text().splitlines() if '"kind":"step"' in line]
        spans.append((instants[0], instants[-1]))
    if len(spans) == 2 and spans[1][0] < spans[0][1]:
        problems.append("they trained at the same time")
    problems += (
        [] if "is in use, waiting for process" in ended[1].err else ["the second does not say for whom it waits"]
    )
    return Outcome(seen="the second user's run waits and says for whom; both are ok", problems=tuple(problems))


add_case("two-users", "runs", "runs of two users at once on one device", lambda trial: _two_users(trial, 0o022))
add_case("two-users-umask", "runs", "the same, the first with a umask of 077", lambda trial: _two_users(trial, 0o077))
