"""Commands as a shell starts them, in surroundings that nobody would choose: each does its work, or says in a sentence
why it cannot."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from document import ROOT

from campaign.cases import CONTROL, NotHere, Outcome, Trial, add_case
from campaign.leftovers import count_left
from campaign.made_store import two_plans, write_attempt
from tunemark.results import Store

_EXAMPLE = ROOT / "tests/example_plugin/tunemark_example"
_WITHIN_S = 300.0
# A run of a toy model that needs torch alone, and is over in seconds.
TOY_RUN = (
    "run", "--model", "toy-lm", "--dataset", "toy-text", "--device", "cpu:1", "--sequence", "32", "--micro-batch", "1",
    "--optimizer", "sgd", "--warmup", "1", "--no-measure-peak", "--target-interval", "0", "--json",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended. code: None if it had to be killed."""

    code: int | None
    out: str
    err: str

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return " ".join(lines[-3:])[-200:]


def _restore_signals() -> None:
    """A shell that started this program in the background has these ignored."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Place:
    """Folders of a trial: `work`, where commands run, their cache and temporary folder, and the example plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work, self.tmp, self.cache, self.site = (folder / name for name in ("work", "tmp", "cache", "site"))
        for path in (self.work, self.tmp, self.cache):
            path.mkdir()
        shutil.copytree(_EXAMPLE, self.site / _EXAMPLE.name, ignore=shutil.ignore_patterns("__pycache__"))
        facts = self.site / "tunemark_example-0.1.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tunemark-example\nVersion: 0.1\n")
        (facts / "entry_points.txt").write_text("[tunemark]\nexample = tunemark_example.plugin\n")

    def variables(self, more: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of commands; None removes a variable."""
        own = {"TMPDIR": str(self.tmp), "TUNEMARK_CACHE": str(self.cache), "PYTHONPATH": str(self.site)}
        found = {**os.environ, **own, **(more or {})}
        return {name: value for name, value in found.items() if value is not None}

    def start(
        self,
        words: Sequence[str],
        variables: Mapping[str, str | None] | None = None,
        *,
        within: Sequence[str] = (),
        flags: Sequence[str] = (),
        user: int | None = None,
        umask: int = -1,
        python: str = sys.executable,
    ) -> subprocess.Popen[bytes]:
        """Start `tunemark WORDS`. within: a command prefix that runs it. flags: of Python. user: whose rights it has,
        if not this one's. python: the interpreter."""
        return subprocess.Popen(
            [*within, python, *flags, "-m", "tunemark", *words], cwd=self.work, env=self.variables(variables),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_restore_signals, user=user, extra_groups=None if user is None else [], umask=umask,
        )  # fmt: skip

    def run(
        self,
        words: Sequence[str],
        variables: Mapping[str, str | None] | None = None,
        *,
        within: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> Ended:
        """Run `tunemark WORDS` to its end."""
        return wait_for(self.start(words, variables, within=within, flags=flags))

    def find_problems(self, ended: Ended, codes: Sequence[int]) -> list[str]:
        """What no command may leave or show. codes: the exit codes that it may have."""
        problems = []
        if ended.code is None:
            problems.append(f"it took more than {_WITHIN_S:.0f} s")
        elif ended.code not in codes:
            problems.append(f"it ended with {ended.code}: {ended.last_words}")
        if "Traceback" in ended.err:
            problems.append(f"a traceback: {ended.last_words}")
        if found := CONTROL.search(ended.out):
            problems.append(f"{found[0]!r} reached the terminal")
        if left := count_left(self.folder):
            problems.append(f"{left} processes are left")
        if self.tmp.is_dir() and (files := self._list_left()):
            problems.append(f"left in the temporary folder: {files[0]}")
        return problems

    def _list_left(self) -> list[str]:
        """Files in the temporary folder, but for the cache that torch keeps there."""
        return sorted(path.name for path in self.tmp.iterdir() if not path.name.startswith("torchinductor_"))


def wait_for(command: subprocess.Popen[bytes]) -> Ended:
    """Wait for a command, and kill it where it takes too long."""
    try:
        out, err = command.communicate(timeout=_WITHIN_S)
        code: int | None = command.returncode
    except subprocess.TimeoutExpired:
        command.kill()
        out, err = command.communicate()
        code = None
    return Ended(code=code, out=out.decode(errors="replace"), err=err.decode(errors="replace"))


# -- a report, in surroundings


def _shell(line: str) -> tuple[str, ...]:
    """A prefix that runs the command in a shell that has prepared something first."""
    return ("sh", "-c", f'{line} exec "$@"', "sh")


def _unshared(line: str) -> tuple[str, ...]:
    return ("unshare", "--mount", *_shell(line))


def _add(
    name: str,
    what: str,
    *,
    variables: Mapping[str, str | None] | None = None,
    within: Sequence[str] = (),
    flags: Sequence[str] = (),
    output: str = "report",
    codes: Sequence[int] = (3,),
    prepare: Callable[[Place], None] = lambda place: None,
    redirect: str = "",
) -> None:
    """`tunemark report` of a stored run. codes: 3 where it worked, since one attempt is too few for a verdict. output:
    the report's folder. redirect: of a shell, after the command."""

    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        write_attempt(Store(place.work / "runs"), two_plans()[0], "attempt-0")
        before = _snapshot(place.work / "runs")
        prepare(place)
        prefix = tuple(within)
        if (
            prefix[:1] == ("unshare",)
            and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
        ):
            raise NotHere("mounts of its own are not permitted")
        words = ("report", str(place.work / "runs"), "-o", output.replace("@", str(place.work)))
        if redirect:
            line = shlex.join([sys.executable, *flags, "-m", "tunemark", *words])
            command = subprocess.Popen(
                ["bash", "-c", f"{line} {redirect}"], cwd=place.work, env=place.variables(variables),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            ended = wait_for(command)
        else:
            ended = place.run(words, variables, within=prefix, flags=flags)
        problems = place.find_problems(ended, codes)
        if _snapshot(place.work / "runs") != before:
            problems.append("the store has changed")
        if ended.code == 3 and not redirect and not list(place.work.rglob("report.html")):
            problems.append("there is no report")
        return Outcome(seen=f"exit code {ended.code}: {ended.last_words}", problems=tuple(problems))

    add_case(f"with-{name}", "surroundings", what, run)


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


_REFUSED = (2,)
_add("lang-c", "LANG=C", variables={"LANG": "C", "LC_ALL": "C"})
_add("posix-no-utf8", "the POSIX locale, and Python's UTF-8 mode off",
     variables={"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})  # fmt: skip
_add("ascii", "an output of ASCII alone", variables={"PYTHONIOENCODING": "ascii"})
_add("korean-encoding", "an output in EUC-KR", variables={"PYTHONIOENCODING": "euc_kr"})
_add("time-zone", "a time zone of 5:45 hours", variables={"TZ": "Asia/Kathmandu"})
_add("no-time-zone", "a time zone that does not exist", variables={"TZ": "Nowhere/Land"})
_add("no-home", "HOME unset", variables={"HOME": None, "TUNEMARK_CACHE": None, "XDG_CACHE_HOME": None})
_add("home-missing", "a HOME that does not exist", variables={"HOME": "/nowhere/at/all", "TUNEMARK_CACHE": None})
_add("no-user", "no name of the user", variables={"USER": None, "LOGNAME": None, "HOME": None})
_add("no-path", "PATH empty", variables={"PATH": ""})
_add("tmp-missing", "a temporary folder that does not exist", variables={"TMPDIR": "/nowhere/at/all"})
_add("narrow", "a terminal of one column", variables={"COLUMNS": "1", "LINES": "1"})
_add("optimized", "python -O", flags=("-O",))
_add("optimized-twice", "python -OO, which drops docstrings", flags=("-OO",))
_add("development", "python -X dev", flags=("-X", "dev"))
_add("warnings", "python -W error", flags=("-W", "error"))
_add("korean-path", "a report's folder with a Korean name", output="@/보고서 가나다")
_add("long-path", "a report's folder with a name of 200 characters", output="@/" + "x" * 200)
_add("longest-path", "a report's folder with a name of 300 characters", output="@/" + "x" * 300, codes=_REFUSED)
_add("newline-path", "a report's folder with a line feed in its name", output="@/a\nb")
_add("escape-path", "a report's folder with commands for a terminal in its name", output="@/\x1b[2Ja")
_add("file-for-folder", "a report's folder that is a file", output="@/taken", codes=_REFUSED,
     prepare=lambda place: (place.work / "taken").touch())  # fmt: skip
_add("users-files", "a report's folder with a report.md of the user", output="@/mine", codes=_REFUSED,
     prepare=lambda place: _put(place.work / "mine" / "report.md"))  # fmt: skip
_add("umask-077", "a umask of 077", within=_shell("umask 077;"))
_add("umask-777", "a umask of 777", within=_shell("umask 777;"), codes=(2, 3))
_add("descriptors", "20 open files at most", within=_shell("ulimit -n 20;"), codes=(2, 3))
_add("file-size", "files of 8 KB at most", within=_shell("ulimit -f 8;"), codes=_REFUSED)
_add("memory", "300 MB of memory", within=_shell("ulimit -v 300000;"), codes=(2, 3, 70))
_add("core-time", "one second of processor time", within=_shell("ulimit -t 1;"), codes=(-9, -24, 152, 137, 3))
_add("no-stdin", "standard input closed", redirect="<&-")
_add("no-stdout", "standard output closed", redirect=">&-")
_add("full-stdout", "standard output full", redirect=">/dev/full", codes=_REFUSED)
_add("no-stderr", "standard error closed", redirect="2>&-")
_add("full-stderr", "standard error full", redirect="2>/dev/full", codes=(2, 3, 120))
_add("reader-gone", "the reader of standard output is gone", redirect="| true; exit ${PIPESTATUS[0]}", codes=(3, 141))
_add("no-proc", "no /proc", within=_unshared("mount -t tmpfs none /proc;"), codes=(2, 3))
_add("no-sys", "no /sys", within=_unshared("mount -t tmpfs none /sys;"))
_add("small-shm", "4 KB of /dev/shm", within=_unshared("mount -t tmpfs -o size=4k none /dev/shm;"))
_add("no-shm", "no /dev/shm", within=_unshared("mount -t tmpfs -o size=4k,mode=000 none /dev/shm;"))
_add("full-output", "a full disk for the report", output="@/disk/report", codes=_REFUSED,
     prepare=lambda place: (place.work / "disk").mkdir(),
     within=_unshared("mount -t tmpfs -o size=64k none disk;"))  # fmt: skip
_add("read-only-output", "a read-only disk for the report", output="@/disk/report", codes=_REFUSED,
     prepare=lambda place: (place.work / "disk").mkdir(),
     within=_unshared("mount -t tmpfs -o ro none disk;"))  # fmt: skip
_add(
    "read-only-store", "a read-only store", within=_unshared("mount --bind runs runs && mount -o remount,ro,bind runs;")
)
_add("full-tmp", "a full temporary folder", within=_unshared('mount -t tmpfs -o size=4k none "$TMPDIR";'), codes=(2, 3))


def _put(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine\n")


def _cwd_removed(trial: Trial) -> Outcome:
    """The working directory is removed before the command starts."""
    place = Place(trial.folder)
    gone = trial.folder / "gone"
    gone.mkdir()
    ended = place.run(("list", "models"), within=("sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh"))
    problems = place.find_problems(ended, (0, 2))
    return Outcome(seen=f"exit code {ended.code}: {ended.last_words}", problems=tuple(problems))


add_case("with-cwd-removed", "surroundings", "a working directory that was removed", _cwd_removed)
