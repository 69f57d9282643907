"""Runs of two users of one machine at once: one after the other, whatever the first one's files look like."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from document import ROOT

from campaign.cases import NeverCame, NotHere, Outcome, Trial, add_case, wait_until
from campaign.commands import TOY_RUN, Place, wait_for

# The second user: one that every system has, and that owns nothing.
_OTHER = "nobody"


def _make_python(folder: Path, user: int) -> str:
    """A virtual environment that the user may run, with all that this interpreter has."""
    seen = ""
    packages = [
        str(ROOT / "harness"),
        str(ROOT / "plugins"),
        *(path for path in sys.path if path.endswith("-packages")),
    ]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for number, base in enumerate([os.path.realpath(sys.executable), f"/usr/bin/{version}"]):
        python = folder / f"venv{number}" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(base)
        (python.parents[1] / "pyvenv.cfg").write_text(f"home = {Path(base).parent}\n")
        site = python.parents[1] / "lib" / version / "site-packages"
        site.mkdir(parents=True)
        (site / "campaign.pth").write_text("\n".join(packages) + "\n")
        words = [str(python), "-c", "import tunemark.cli.main, torch"]
        try:
            done = subprocess.run(words, user=user, extra_groups=[], capture_output=True, text=True, cwd="/")
        except OSError as error:
            seen = str(error)
            continue
        if done.returncode == 0:
            return str(python)
        seen = done.stderr.strip()[-200:]
    raise NotHere(f"other users have no interpreter with torch here: {seen}")


def _two_users(trial: Trial, umask: int) -> Outcome:
    """Root measures, and meanwhile another user starts a run on the same device."""
    if os.geteuid() != 0:
        raise NotHere("needs root")
    other = pwd.getpwnam(_OTHER)
    trial.folder.chmod(0o711)
    python = _make_python(trial.folder, other.pw_uid)
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
    # Longer than the second user's command takes to begin.
    long = (*TOY_RUN, "--budget", "20", "--repeats", "1")

    def variables(place: Place) -> dict[str, str | None]:
        own = {"TUNEMARK_LOCKS": str(locks), "HOME": str(place.folder)}
        return {**own, "USER": None, "LOGNAME": None}

    commands = [first.start(long, variables(first), umask=umask, python=python)]

    def has_begun() -> bool:
        if commands[0].poll() is not None:
            raise NeverCame(f"the first run ended: {wait_for(commands[0]).last_words}")
        return any(b'"kind":"step"' in path.read_bytes() for path in first.work.glob("runs/*/*/records.0.jsonl"))

    wait_until(has_begun, "the first run's first step", 240)
    commands.append(second.start(words, variables(second), user=other.pw_uid, python=python))
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
