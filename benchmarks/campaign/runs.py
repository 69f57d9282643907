"""Real runs of a toy model whose disk, clock, folders or command break: what was finished is kept and measured once."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.cases import NeverCame, Outcome, Trial, add_case, wait_until
from campaign.commands import TOY_RUN, Ended, Place, wait_for
from campaign.leftovers import count_left
from campaign.shim import build_shim
from tunemark.report.verification import verify_folder

# Two attempts of one run, of some seconds each.
_WORDS = (*TOY_RUN, "--steps", "6", "--repeats", "2")
_LONG = (*TOY_RUN, "--steps", "1000000", "--budget", "100000", "--repeats", "2")
_OK = (0, 1, 3)


def _rows(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]


def _attempts(place: Place) -> list[tuple[str, str | None]]:
    """(folder, status) of every stored attempt, the oldest first."""
    found = []
    for path in sorted(place.work.glob("runs/*/*/attempt.json")):
        try:
            found.append((path.parent.name, json.loads(path.read_text()).get("status")))
        except ValueError:
            found.append((path.parent.name, "unreadable"))
    return found


def _finish(place: Place, before: Sequence[tuple[str, str | None]], repeats: int = 2) -> list[str]:
    """Run the same command again, without any fault: it must measure what is missing, and nothing else."""
    problems = []
    ended = place.run(_WORDS)
    problems += place.find_problems(ended, _OK)
    rows = _rows(ended)
    # An attempt that was ended stays a row of its own beside those that count.
    finished = [[each["status"] for each in row["each_attempt"]].count("ok") for row in rows]
    if [row["status"] for row in rows] != ["ok"] or finished != [repeats]:
        problems.append(f"the same command does not finish the run: {ended.last_words}")
    now = _attempts(place)
    if missing := set(before) - set(now):
        problems.append(f"attempt {sorted(missing)[0]} is gone")
    good = [name for name, status in now if status == "ok"]
    kept = [name for name, status in before if status == "ok"]
    if not set(kept) <= set(good):
        problems.append("a finished attempt is lost")
    if len(good) > repeats and kept:
        problems.append(f"{len(good)} attempts are finished instead of {repeats}")
    touched = [part for part in verify_folder(place.work / "runs") if part.state == "touched"]
    problems += [f"{touched[0].part} counts as touched: {touched[0].problems[0]}"] if touched else []
    return problems


# -- writing fails


def _add_write(name: str, what: str, file: str, number: int, after: int, statuses: Sequence[str], **more: str) -> None:
    """Writing files of this name fails. statuses: of the row, or "refused"."""

    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        fault = {"LD_PRELOAD": str(build_shim(trial.folder)), "FAULT_NAME": file, "FAULT_ERRNO": str(number)}
        fault.update(FAULT_AFTER=str(after), **more)
        ended = place.run((*_WORDS, "-o", "report"), fault)
        rows = _rows(ended)
        problems = place.find_problems(ended, (*_OK, 2, 4))
        found = rows[0]["status"] if rows else "refused" if ended.code == 2 else "nothing"
        why = rows[0]["each_attempt"][-1]["evidence"] if rows and found != "ok" else ended.last_words
        if found not in statuses:
            problems.append(f"{found} instead of {' or '.join(statuses)}")
        problems += _finish(place, _attempts(place)) if not problems else []
        return Outcome(seen=f"{found}, exit code {ended.code}: {why}", problems=tuple(problems))

    add_case(f"write-{name}", "runs", what, run)


_add_write("cache", "the quota is reached while the token file is made", "/tokens/", errno.EDQUOT, 0, ["refused"])
_add_write("plan", "the disk fails when an attempt begins", "plan.json", errno.EIO, 0, ["error", "refused"])
_add_write("records", "the quota is reached while records are written", "records.0", errno.EDQUOT, 8, ["error"])
_add_write("records-io", "the disk fails while records are written", "records.0", errno.EIO, 8, ["error"])
_add_write("attempt", "a stale file handle when an attempt has ended", "attempt.json", errno.ESTALE, 2, ["ok", "error"])
_add_write("seal", "no room for the seal", "seal", errno.ENOSPC, 0, ["ok"])
_add_write("result", "no room for result.json", "result.json", errno.ENOSPC, 0, ["ok"])
_add_write("report", "no room for the report", "report/", errno.ENOSPC, 0, ["ok", "refused"])
_add_write("outputs", "no room for what the worker prints", "stderr.log", errno.ENOSPC, 0, ["ok", "error"])
_add_write("slow", "a network's disk that takes 2 ms for each call", "nothing", 0, 0, ["ok"], FAULT_DELAY_US="2000")


# -- the date


def _add_date(name: str, what: str, off_s: int, after_s: int) -> None:
    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        fault = {"LD_PRELOAD": str(build_shim(trial.folder))}
        fault.update(FAULT_DATE_S=str(off_s), FAULT_DATE_AFTER_S=str(after_s))
        ended = place.run(_WORDS, fault)
        rows = _rows(ended)
        problems = place.find_problems(ended, _OK)
        if [row["status"] for row in rows] != ["ok"]:
            problems.append("no row that is ok")
        else:
            rules = [finding["rule"] for finding in rows[0]["findings"]]
            problems += [] if "preloaded" in rules else ["the library is not remarked"]
        # The next attempts, with the right date, are the newest.
        again = place.run((*_WORDS, "--redo"))
        names = [row["name"] for row in _rows(again)[0]["each_attempt"]] if again.code in _OK else []
        late = place.run(("report", "runs", "--json"))
        newest = [each["name"] for row in _rows(late) for each in row["each_attempt"]]
        problems += [] if names and newest == names else ["the attempts of the wrong date stay the newest"]
        return Outcome(seen=f"ok, and the next attempts are the newest: {', '.join(newest)}", problems=tuple(problems))

    add_case(f"date-{name}", "runs", what, run)


_add_date("ahead", "a date ten years ahead", 315_360_000, 0)
_add_date("jump", "a date that jumps a year ahead while a run is measured", 31_536_000, 3)
_add_date("back", "a date before 1980", -1_500_000_000, 0)


# -- folders vanish


def _add_vanishing(name: str, what: str, break_it: Callable[[Place], None]) -> None:
    """Something happens to the folders while the first attempt trains."""

    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        command = place.start((*TOY_RUN, "--budget", "6", "--repeats", "2"))
        _wait_for_steps(place, command, 3)
        break_it(place)
        ended = wait_for(command)
        rows = _rows(ended)
        if place.tmp.is_symlink() or not place.tmp.exists():
            place.tmp.unlink(missing_ok=True)
            place.tmp.mkdir()
        problems = place.find_problems(ended, (*_OK, 2, 4))
        problems += [] if rows else ["no row"]
        words = rows[0]["status"] if rows else f"exit code {ended.code}"
        evidence = rows[0]["each_attempt"][-1]["evidence"] if rows and rows[0]["each_attempt"] else ended.last_words
        return Outcome(seen=f"{words}: {evidence}", problems=tuple(problems))

    add_case(f"vanish-{name}", "runs", what, run)


def _replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


_add_vanishing("store", "the store is removed while a run is measured",
               lambda place: shutil.rmtree(place.work / "runs"))  # fmt: skip
_add_vanishing("store-file", "the store becomes a file while a run is measured",
               lambda place: _replace_by_file(place.work / "runs"))  # fmt: skip
_add_vanishing("store-renamed", "the store is renamed while a run is measured",
               lambda place: (place.work / "runs").rename(place.work / "moved") and None)  # fmt: skip
_add_vanishing("cache", "the cache is removed while a run is measured", lambda place: shutil.rmtree(place.cache))
_add_vanishing("tmp", "the temporary folder is removed while a run is measured", lambda place: shutil.rmtree(place.tmp))


# -- two at once


def _wait_for_steps(place: Place, command: subprocess.Popen[bytes], steps: int) -> Path:
    def come() -> Path | None:
        for path in place.work.glob("runs/*/*/records.0.jsonl"):
            if path.read_bytes().count(b'"kind":"step"') >= steps:
                return path.parent
        if command.poll() is not None:
            raise NeverCame(f"no step was taken: {wait_for(command).last_words}")
        return None

    found: Path = wait_until(come, f"{steps} steps", 240)
    return found


def _two_at_once(trial: Trial, more: Sequence[str], attempts: int) -> Outcome:
    place = Place(trial.folder)
    both = [place.start((*_WORDS, *more)) for _ in range(2)]
    ended = [wait_for(each) for each in both]
    problems = [problem for each in ended for problem in place.find_problems(each, _OK)]
    results = [_rows(each)[0]["each_attempt"] if _rows(each) else [] for each in ended]
    names = [[each["name"] for each in result] for result in results]
    good = [name for name, status in _attempts(place) if status == "ok"]
    problems += [] if len(good) == attempts else [f"{len(good)} attempts instead of {attempts}"]
    problems += [] if all(len(each) == 2 for each in names) else ["a result is not of two attempts"]
    if more and set(names[0]) & set(names[1]):
        problems.append("one prints the other's attempts")
    seen = "they share two attempts" if not more else "each prints its own two attempts"
    return Outcome(seen=seen, problems=tuple(problems))


add_case("twice", "runs", "the same command twice at once", lambda trial: _two_at_once(trial, (), 2))
add_case("twice-redo", "runs", "the same command twice at once, with --redo",
         lambda trial: _two_at_once(trial, ("--redo",), 4))  # fmt: skip


def _read_during(trial: Trial) -> Outcome:
    """A report, verify and clean of a store in which a run is measured."""
    place = Place(trial.folder)
    command = place.start(_LONG)
    _wait_for_steps(place, command, 3)
    problems = []
    said = ""
    clean = ("clean", "runs", "--only", "attempts,half-written", "--yes")
    for words in (("report", "runs"), ("verify", "runs"), clean):
        ended = place.run(words)
        said += ended.err + ended.out
        if ended.code not in (0, 3) or "Traceback" in ended.err:
            problems.append(f"`{words[0]}` ended with {ended.code}: {ended.last_words}")
    if "under way" not in said or "killed" in said:
        problems.append("the run under way is not called that")
    command.send_signal(signal.SIGINT)
    ended = wait_for(command)
    problems += place.find_problems(ended, (130,))
    rows = _rows(ended)
    problems += [] if rows and rows[0]["steps_measured"] > 0 else ["what was measured until Ctrl-C is lost"]
    return Outcome(seen="it is said to be under way, and goes on", problems=tuple(problems))


add_case("read-during", "runs", "report, verify and clean while a run is measured", _read_during)


# -- signals at random moments


def _add_signal(name: str, what: str, number: signal.Signals, codes: Sequence[int]) -> None:
    """A signal to the command at a random moment of its life. codes: how the command may end."""

    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        command = place.start(_WORDS)
        moment_s = trial.chance.uniform(0.2, 25.0)
        time.sleep(moment_s)
        is_hit = command.poll() is None
        if is_hit:
            command.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(5.0)
            command.send_signal(signal.SIGCONT)
        ended = wait_for(command)
        problems = [] if ended.code in (*codes, *(_OK if not is_hit else ())) else [f"exit code {ended.code}"]
        problems += ["a traceback"] if "Traceback" in ended.err else []
        problems += [f"{left} processes are left"] if (left := count_left(place.folder)) else []
        before = _attempts(place)
        problems += _finish(place, before)
        when = f"after {moment_s:.1f} s" if is_hit else "too late"
        seen = f"{when}: exit code {ended.code}, {sum(s == 'ok' for _, s in before)} of 2 attempts were finished; the "
        return Outcome(seen=seen + "same command measured the rest", problems=tuple(problems))

    add_case(f"signal-{name}", "signals", what, run, is_random=True)


_add_signal("interrupt", "SIGINT to the command", signal.SIGINT, (130, -2))
_add_signal("terminate", "SIGTERM to the command", signal.SIGTERM, (130, -15))
_add_signal("kill", "SIGKILL to the command", signal.SIGKILL, (-9,))
_add_signal("hang-up", "SIGHUP to the command", signal.SIGHUP, (130, -1))
_add_signal("quit", "SIGQUIT to the command", signal.SIGQUIT, (130, -3))
_add_signal("stop", "SIGSTOP to the command for five seconds", signal.SIGSTOP, _OK)
_add_signal("pipe", "SIGPIPE to the command", signal.SIGPIPE, _OK)
_add_signal("user", "SIGUSR1 to the command", signal.SIGUSR1, (-10,))


def _add_worker_signal(name: str, what: str, number: signal.Signals, statuses: Mapping[str, str]) -> None:
    """A signal to the worker at a random moment after it began. statuses: of the row, with words of its evidence."""

    def run(trial: Trial) -> Outcome:
        place = Place(trial.folder)
        more = ("--timeout", "20") if number == signal.SIGSTOP else ()
        command = place.start((*_LONG, *more) if number != signal.SIGUSR1 else _WORDS)

        def begun() -> int | None:
            for path in place.work.glob("runs/*/*/records.0.jsonl"):
                if text := path.read_text().partition("\n")[0]:
                    return int(json.loads(text)["pid"])
            return None

        pid = wait_until(begun, "the worker", 240)
        moment_s = trial.chance.uniform(0.0, 15.0)
        time.sleep(moment_s)
        subprocess.run(["kill", f"-{number.value}", str(pid)], capture_output=True)
        ended = wait_for(command)
        problems = place.find_problems(ended, (*_OK, 4))
        rows = _rows(ended)
        status = rows[0]["status"] if rows else "no row"
        evidence = rows[0]["each_attempt"][-1]["evidence"] if rows else ended.last_words
        if status not in statuses or statuses[status] not in evidence:
            problems.append(f"{status}: {evidence}")
        problems += _finish(place, _attempts(place)) if number != signal.SIGUSR1 else []
        return Outcome(seen=f"after {moment_s:.1f} s: {status}: {evidence}", problems=tuple(problems))

    add_case(f"worker-{name}", "signals", what, run, is_random=True)


_add_worker_signal("kill", "SIGKILL to the worker", signal.SIGKILL, {"killed": "-9"})
_add_worker_signal("terminate", "SIGTERM to the worker", signal.SIGTERM, {"killed": ""})
_add_worker_signal("interrupt", "SIGINT to the worker", signal.SIGINT, {"killed": ""})
_add_worker_signal("segfault", "SIGSEGV to the worker", signal.SIGSEGV, {"killed": "-11"})
_add_worker_signal("abort", "SIGABRT to the worker", signal.SIGABRT, {"killed": "-6"})
_add_worker_signal("stop", "SIGSTOP to the worker", signal.SIGSTOP, {"timeout": "was stopped"})
_add_worker_signal("user", "SIGUSR1 to the worker", signal.SIGUSR1, {"ok": ""})
