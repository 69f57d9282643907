"""The runs folder: `<model>-<device>-<size>-<strategy>-<run_id>/<attempt>/`, from which every result is derived.

The records are authoritative. `result.json` beside them is for people and other programs: it is never read back.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from tunemark.atomic_write import write_atomically
from tunemark.errors import BadStore, TunemarkError
from tunemark.experiment import Plan
from tunemark.fields import read_fields
from tunemark.physics.chip_peaks import parse_precision
from tunemark.results import telemetry
from tunemark.results.attempt_process import is_under_way
from tunemark.results.measurement import Measurement, read_measurement
from tunemark.results.report_seal import REPORT_SEAL_FILE
from tunemark.results.result import SCHEMA, Result, RunIdentity, Status, encode_result
from tunemark.results.run_statistics import derive_result
from tunemark.results.seal import SEAL_FILE, SealCheck, check_seal, make_seal
from tunemark.results.seal_journal import JOURNAL_FILE, JournalContent, SealJournal
from tunemark.results.stored_attempt import StoredAttempt
from tunemark.results.stored_file import read_stored_file, refuse_endless_numbers
from tunemark.results.token_witness import find_token_hash, read_documents, recount_all
from tunemark.results.trace import MAX_WINDOWS, Trace, read_trace
from tunemark_worker.contract import Assignment
from tunemark_worker.training_settings import TRAINING_SETTINGS

# Roughly what a short attempt writes.
_WRITE_TEST_BYTES = 256 * 1024
# Each of them shows that a folder is a report's.
_REPORT_FILES = ("runs.jsonl", REPORT_SEAL_FILE)
# Each of them shows that a folder is an attempt's.
_ATTEMPT_FILES = ("attempt.json", "plan.json", SEAL_FILE, "records.0.jsonl")
# The name of a run's folder ends with its run_id.
_RUN_FOLDER = re.compile(r"-[0-9a-f]{16}$")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """An attempt's folder and its attempt.json. assignment: only if the folder has no plan.json."""

    folder: Path
    identity: RunIdentity
    facts: Mapping[str, Any]
    assignment: Assignment | None = None

    @property
    def started(self) -> tuple[str, str]:
        """Its place in the order of attempts."""
        return str(self.facts.get("order") or self.facts.get("started_utc", "")), self.folder.name


def is_store(folder: Path) -> bool:
    """Whether a folder holds attempts."""
    try:
        return (folder / JOURNAL_FILE).exists() or any(folder.glob("*/*/attempt.json"))
    except OSError:  # a name that the file system does not take
        return False


def _find_sealed(folder: Path) -> Path | None:
    """The run's or attempt's folder that this is or lies in; None if it is in neither."""
    for each in (folder.resolve(), *folder.resolve().parents):
        with contextlib.suppress(OSError):
            is_run = _RUN_FOLDER.search(each.name) and any(each.glob("*/attempt.json"))
            if is_run or ((each / "attempt.json").is_file() and _RUN_FOLDER.search(each.parent.name)):
                return each
    return None


class Store:
    """All attempts in one folder; copying run folders into it merges stores."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._journal = SealJournal(root)
        # Attempts that a full disk could not store: they are rows of the results too, and the sweep continues.
        self._unwritten: dict[Path, _Entry] = {}

    # -- checks before anything is measured

    def prove_writable(self) -> None:
        """Raise `BadStore` unless attempts can be written."""
        if not is_store(self.root) and any((self.root / name).exists() for name in _REPORT_FILES):
            raise BadStore(
                what=f"{self.root} is the folder of a report",
                why="the runs in it would not be told from those of the report",
                next="name another folder with --store",
            )
        self._prove(self.root)

    @classmethod
    def prove_folder(cls, folder: Path) -> None:
        """Create a report's folder; raise `BadStore` unless files can be written to it, or if it is a store or in the
        folder of a run."""
        if is_store(folder):
            raise BadStore(
                what=f"{folder} is a store",
                why="a report in it would be read instead of its runs",
                next="name another folder with --output; one in it will do",
            )
        if sealed := _find_sealed(folder):
            raise BadStore(
                what=f"{folder} is in {sealed}, which holds measurements",
                why="a file that is added there shows as touched",
                next="name another folder with --output",
            )
        cls._prove(folder)

    @staticmethod
    def _prove(folder: Path) -> None:
        with _bad_store_on_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # A full disk may still take an empty file.
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-") as file:
                file.write(bytes(_WRITE_TEST_BYTES))
                file.flush()

    # -- reading

    def has_attempt(self, run_id: str) -> bool:
        return bool(self._entries(run_id))

    def finished_attempts(
        self, run_id: str, fingerprint: str, *, verified: bool = False, among_own: bool = False
    ) -> int:
        """The number of ok attempts of the newest series with this code, data and interpreter; if `verified`, only
        those whose strategy was verified.

        among_own: of attempts with other code, data or interpreter, which another command may make meanwhile, nothing
        counts; else a newer series of those has replaced ours."""
        ours = self._newest_own(run_id, fingerprint, among_own)
        return sum(_is_finished(e) and not (verified and "verification" not in e.facts) for e in ours)

    def find_touched(self, run_id: str, fingerprint: str, *, among_own: bool = False) -> list[str]:
        """What was touched of the attempts that `finished_attempts` counts, and is why they do not count."""
        found = []
        for entry in self._newest_own(run_id, fingerprint, among_own):
            checked = self._check_entry(entry)
            if checked.state == "touched":
                found.append(f"{entry.folder.name}: {'; '.join(checked.problems)}")
        return found

    def make_order(self, run_id: str, started_utc: str) -> str:
        """The place of a new attempt among those of its run: its start or, where a clock was wrong and an attempt that
        is there already says a later one, that one's place with a dot. So the newest is the one that was made last."""
        newest = max((entry.started[0] for entry in self._entries(run_id, broken=lambda error: None)), default="")
        return started_utc if newest < started_utc else f"{newest}."

    def unfinished(self, run_id: str, fingerprint: str) -> list[tuple[Path, Mapping[str, Any]]]:
        """(folder, facts) of the attempts without a recorded end that no command measures now, the oldest first."""
        found = sorted((e for e in self._entries(run_id) if _has_fingerprint(e, fingerprint)), key=lambda e: e.started)
        return [(e.folder, e.facts) for e in found if "status" not in e.facts and not is_under_way(e.facts)]

    def measurements(self, run_id: str) -> list[Measurement]:
        """The records of the newest series' attempts, in order of time."""
        return [read_measurement(entry.folder) for entry in self._newest(run_id)]

    def series(self, run_id: str, fingerprint: str, *, new: bool, among_own: bool = False) -> str:
        """The name of the series that new attempts join: the newest one, or a new one. among_own: as in
        `finished_attempts`."""
        newest = self._newest_own(run_id, fingerprint, among_own)
        if newest and not new:
            return str(newest[0].facts["series"])
        return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}-{fingerprint[:8]}"

    def result(self, run_id: str, *, series: str | None = None, fingerprint: str | None = None) -> Result:
        """Derive the result of a run's newest series, with no findings but those of its statistics. series,
        fingerprint: only of attempts that have this one, since other commands may add their own meanwhile."""
        entries = self._entries(run_id)
        wanted = [e for e in entries if series in (None, e.facts.get("series"))]
        wanted = [e for e in wanted if fingerprint is None or _has_fingerprint(e, fingerprint)] or entries
        assert wanted, "a result needs an attempt"
        return _derive(_last_series(_without_running(wanted) or wanted), self._check_entry)

    def write_result(self, result: Result) -> None:
        """Store a judged result beside its newest attempt, for people; on a full disk nothing is lost by leaving it."""
        with contextlib.suppress(BadStore):
            names = [row.name for row in result.each_attempt]
            (*_, newest) = [e for e in self._entries(result.run_id) if e.folder.name in names]
            path, text = newest.folder / "result.json", encode_result(result) + "\n"
            # Noted when there is room for it: what is noted and not there would count as removed.
            with _bad_store_on_error(path):
                note = functools.partial(self._journal.add, path.parent, path.name, text.encode())
                write_atomically(path, text, before=note)

    def results(
        self,
        *,
        every_series: bool = False,
        folder: str | None = None,
        broken: Callable[[TunemarkError], None] | None = None,
    ) -> list[Result]:
        """The results of the newest series of all runs, or of every series, the oldest first. folder: only this run's.

        broken: called for each attempt and run that cannot be read, which is then skipped; without it the first raises.
        """
        if not self.root.is_dir():
            raise BadStore(what=f"there is no store {self.root}", next="give the folder that --store names")
        runs: dict[str, list[_Entry]] = {}
        for entry in self._entries(folder=folder, broken=broken):
            if not is_under_way(entry.facts):
                runs.setdefault(entry.identity.run_id, []).append(entry)
            elif broken is not None:
                broken(_make_under_way(entry))
        series = [s for entries in runs.values() for s in (_split_series if every_series else _newest_only)(entries)]
        found = []
        for entries in sorted(series, key=lambda s: s[0].started):
            try:
                found.append(_derive(entries, self._check_entry))
            except BadStore as error:
                if broken is None:
                    raise
                broken(error)
            except ArithmeticError as error:
                failure = make_number_failure(entries[-1].folder, error)
                if broken is None:
                    raise failure from error
                broken(failure)
        return found

    def traces(self, result: Result, most: int = MAX_WINDOWS) -> list[Trace]:
        """The raw steps of a result's attempts, at most `most` windows each; attempts whose records are missing or
        broken are skipped."""
        rows = {row.name: row for row in result.each_attempt}
        found = []
        for entry in self._newest(result.run_id):
            if entry.folder.name in rows:
                drawn = read_trace(entry.folder, result.run_id, rows[entry.folder.name], most)
                found += [drawn] if drawn else []
        return found

    # -- writing

    def attempt_folder(self, plan: Plan, name: str) -> Path:
        """The folder for an attempt of this name."""
        spec = plan.spec
        words = "-".join([spec.model, spec.device, spec.size, spec.strategy])
        # File names are limited to 255 bytes, and options may hold paths; only the run_id identifies a run.
        run = re.sub(r"[^A-Za-z0-9._+=-]", "_", words)[:150] + f"-{plan.run_id}"
        return self.root.absolute() / run / name

    def new_attempt(self, plan: Plan, folder: Path, assignment: Assignment, facts: Mapping[str, Any]) -> None:
        """Create an attempt's folder, with its plan and the facts known before the launch."""
        with _bad_store_on_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "plan.json", assignment.to_json())
        _write(folder / "attempt.json", _encode(plan, facts))

    def write_attempt(
        self, plan: Plan, folder: Path, facts: Mapping[str, Any], assignment: Assignment | None = None
    ) -> None:
        """Write the parent's facts of an attempt, after its launch and again after its end. If writing fails they are
        kept in memory with this store. assignment: needed if plan.json could not be written either."""
        self._unwritten.pop(folder, None)
        missing = None if (folder / "plan.json").exists() else assignment
        try:
            _write(folder / "attempt.json", _encode(plan, facts))
            if missing is not None:
                _write(folder / "plan.json", missing.to_json())
        except BadStore:
            self._unwritten[folder] = _Entry(
                folder=folder, identity=make_identity(plan), facts=dict(facts), assignment=missing
            )

    def finish_attempt(
        self,
        plan: Plan,
        folder: Path,
        facts: Mapping[str, Any],
        assignment: Assignment | None = None,
    ) -> None:
        """Store how an attempt ended, and seal its files. Where there is no room for a seal it stays unsealed."""
        sealed = {**facts, "sealed": True}
        try:
            self._seal(plan, folder, facts, _encode(plan, sealed))
        except (OSError, BadStore):
            sealed = dict(facts)
        self.write_attempt(plan, folder, sealed, assignment)

    def _seal(self, plan: Plan, folder: Path, facts: Mapping[str, Any], attempt_text: str) -> None:
        token_sha256 = recounted = None
        with contextlib.suppress(BadStore):
            measurement = read_measurement(folder)
            token_sha256 = find_token_hash(measurement.assignment.token_file)
            documents = read_documents(measurement.assignment.token_file) if facts.get("status") == "ok" else None
            recounted = recount_all(measurement, documents) if documents else None
        seal = make_seal(
            folder,
            attempt_text,
            run_id=plan.run_id,
            code_sha256=str(facts.get("code_sha256", "")),
            token_sha256=token_sha256,
            recounted=recounted,
            may_grow=plan.launcher.is_remote and facts.get("status") != "ok",
            journal=self._journal.name(),
        )
        # The journal comes first: what it names and is not there is missed, so it names nothing too late.
        content = seal.encode()
        self._journal.add(folder, SEAL_FILE, content)
        write_atomically(folder / SEAL_FILE, content)

    # -- removing

    def replaced_attempts(self) -> list[Path]:
        """The folders of attempts whose series a newer one has replaced, as no result is of them."""
        runs: dict[str, list[_Entry]] = {}
        for entry in self._entries(broken=lambda error: None):
            runs.setdefault(entry.identity.run_id, []).append(entry)
        found = []
        for entries in runs.values():
            newest = _last_series(_without_running(entries) or entries)
            found += [e.folder for e in entries if e not in newest and not is_under_way(e.facts)]
        return sorted(found)

    def remove_attempt(self, folder: Path) -> None:
        """Remove an attempt of this store, which says so, so that nobody misses it. OSError if it cannot."""
        self._journal.add_removed(folder)
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # of a run that has no other attempt

    # -- seals

    def check_attempts(self, result_run_id: str | None = None) -> Iterator[tuple[Path, SealCheck]]:
        """Each attempt's folder, also of those that cannot be read or are gone, and whether it is what it was."""
        run = f"*-{result_run_id}" if result_run_id else "*"
        root = self.root.absolute()
        folders = {path.parent for name in _ATTEMPT_FILES for path in root.glob(f"{run}/*/{name}")}
        noted = {root / name / attempt for name, attempt in self._journal.content.attempts}
        for folder in sorted(folders | {path for path in noted if path.parent.match(run)}):
            yield folder, self.check_attempt(folder)

    def check_attempt(self, folder: Path) -> SealCheck:
        """Whether an attempt's files are what they were when it ended."""
        journal = self._journal.content
        if not folder.is_dir():
            return SealCheck(state="touched", problems=("the attempt was removed",))
        checked = check_seal(folder)
        problems = list(journal.check(folder, checked.seal.journal if checked.seal else ""))
        if checked.state == "unsealed" and is_under_way(_read_facts(folder)):
            return SealCheck(state="unsealed", problems=("it is under way",))
        return checked.with_problems(problems) if problems else checked

    @property
    def journal(self) -> JournalContent:
        """The store's list of seals."""
        return self._journal.content

    # -- finding attempts

    def _entries(
        self,
        run_id: str | None = None,
        folder: str | None = None,
        broken: Callable[[TunemarkError], None] | None = None,
    ) -> list[_Entry]:
        run = f"*-{run_id}" if run_id else glob.escape(folder) if folder else "*"
        found = []
        for path in sorted(self.root.glob(f"{run}/*/attempt.json")):
            try:
                found.append(_read_entry(path))
            except BadStore as error:
                if broken is None:
                    raise
                broken(error)
        known = {entry.folder.absolute(): entry for entry in found} | self._unwritten
        wanted = [e for e in known.values() if folder is None or e.folder.parent.name == folder]
        return [e for e in wanted if run_id is None or e.identity.run_id == run_id]

    def _check_entry(self, entry: _Entry) -> SealCheck:
        if entry.folder in self._unwritten:
            return SealCheck(state="unsealed", problems=("a full disk could not store it",))
        return self.check_attempt(entry.folder)

    def _newest_own(self, run_id: str, fingerprint: str, among_own: bool) -> list[_Entry]:
        """The newest series of a run, if it has this fingerprint. among_own: the newest of those that have it."""
        if not among_own:
            return [e for e in self._newest(run_id) if _has_fingerprint(e, fingerprint)]
        ours = [e for e in self._entries(run_id) if _has_fingerprint(e, fingerprint)]
        return _last_series(ours) if ours else []

    def _newest(self, run_id: str) -> list[_Entry]:
        entries = self._entries(run_id)
        return _last_series(entries) if entries else []


def make_number_failure(place: Path, error: ArithmeticError) -> BadStore:
    """The error of a run whose stored numbers cannot be computed with; no run that was measured has such."""
    return BadStore(
        what=f"{place} cannot be read",
        why=f"its numbers cannot be computed with: {error}",
        next=f"move {place} away, or restore it from where it was copied",
    )


def make_identity(plan: Plan) -> RunIdentity:
    """The identity of a plan, which is stored with its attempts."""
    spec, accelerator = plan.spec, plan.accelerator
    trained = {each.stored: getattr(spec, each.name) for each in TRAINING_SETTINGS}
    same = set(RunIdentity.__struct_fields__) & set(type(spec).__dataclass_fields__) - set(trained)
    # Autocast computes in the precision of its name.
    peaks = accelerator.peak_flops
    peak_flops = peaks.get(spec.precision, peaks.get(parse_precision(spec.precision) or ""))
    return RunIdentity(
        **trained,
        **read_fields(spec, *same),
        **read_fields(plan, "run_id", "data_ranks", "gradient_accumulation", "parameters", "trainable_parameters"),
        **read_fields(plan, "flops_per_token", "flops_per_token_full_attention", "hardware_flops_per_token"),
        **read_fields(plan.launch, "processes", "threads"),
        **read_fields(accelerator, "chip", "chips", "oversubscribed", "parts", "memory_bytes"),
        strategy_requested=spec.strategy,
        steps_requested=spec.steps,
        warmup_requested=spec.warmup,
        budget_s=spec.budget,
        window_s=spec.window,
        simulated=accelerator.is_simulated,
        learnable=plan.dataset.learnable,
        peak_flops=peak_flops,
        peak_flops_source=accelerator.source if peak_flops is not None else None,
    )


def _derive(entries: list[_Entry], check: Callable[[_Entry], SealCheck]) -> Result:
    attempts = [_attempt(entry, check(entry)) for entry in entries]
    documents = read_documents(attempts[-1].measurement.assignment.token_file)
    return derive_result(entries[-1].identity, attempts, documents)


def _attempt(entry: _Entry, seal: SealCheck) -> StoredAttempt:
    facts = entry.facts
    unreadable = ""
    if entry.assignment is None:
        try:
            measurement = read_measurement(entry.folder)
        except BadStore as error:
            if (found := _read_assignment(entry.folder)) is None:
                raise
            measurement, unreadable = Measurement(assignment=found, ranks=(), partial_lines=0), error.one_line()
    else:
        measurement = Measurement(assignment=entry.assignment, ranks=(), partial_lines=0)
    status, reason, evidence = _end_by_records(measurement)
    if facts.get("status") in ("oom", "error", "killed", "timeout") or (facts.get("status") == "ok" and status == "ok"):
        status = facts["status"]
        reason, evidence = str(facts.get("reason", "")), str(facts.get("evidence", ""))
    if unreadable:
        status, reason, evidence = "error", "records", unreadable
    return StoredAttempt(
        name=entry.folder.name,
        status=status,
        reason=reason,
        evidence=evidence,
        measurement=measurement,
        launched_s=facts.get("launched_s"),
        facts={k: v for k, v in facts.items() if k not in ("run", "schema", "spec", "sealed")},
        telemetry=telemetry.read_telemetry(entry.folder),
        seal=seal,
    )


def _read_assignment(folder: Path) -> Assignment | None:
    try:
        return Assignment.from_json(read_stored_file(folder / "plan.json").decode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _end_by_records(measurement: Measurement) -> tuple[Status, str, str]:
    """Decide from the records alone how an attempt ended."""
    for rank in measurement.ranks:
        if rank.end is not None and rank.end.get("status") != "ok":
            status: Status = "oom" if rank.end.get("status") == "oom" else "error"
            return status, str(rank.end.get("reason")), str(rank.end.get("error"))
    ended = [rank.end for rank in measurement.ranks if rank.end is not None]
    if len(ended) < measurement.assignment.processes:
        missing = measurement.assignment.processes - len(ended)
        return "killed", "no end record", f"{missing} of {measurement.assignment.processes} ranks wrote no end record"
    reason = str(ended[0].get("reason"))
    if reason == "interrupted":
        return "killed", reason, "ended at a window's edge: it was asked to, or the command that followed it was gone"
    return "ok", reason, "every rank wrote its end record"


def _read_facts(folder: Path) -> Mapping[str, Any]:
    try:
        facts = msgspec.json.decode(read_stored_file(folder / "attempt.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _read_entry(path: Path) -> _Entry:
    try:
        text = read_stored_file(path).decode()
        refuse_endless_numbers(text)
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise ValueError(f"not an attempt of schema {SCHEMA}")
        return _Entry(folder=path.parent, identity=msgspec.convert(raw.get("run"), RunIdentity), facts=raw)
    except (OSError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        next = f"move {path.parent} away, or restore it from where it was copied"
        raise BadStore(what=f"{path}{line} cannot be read", why=str(error), next=next) from error


def _is_finished(entry: _Entry) -> bool:
    """Whether it ended well and still has the records of that."""
    return entry.facts.get("status") == "ok" and (entry.folder / "records.0.jsonl").exists()


def _without_running(entries: list[_Entry]) -> list[_Entry]:
    return [entry for entry in entries if not is_under_way(entry.facts)]


def _make_under_way(entry: _Entry) -> BadStore:
    process = entry.facts["process"]["pid"]
    return BadStore(
        what=f"{entry.folder} is under way", why=f"process {process} measures it", next="wait until it ends"
    )


def _last_series(entries: list[_Entry]) -> list[_Entry]:
    ordered = sorted(entries, key=lambda e: e.started)
    series = ordered[-1].facts.get("series")
    return [e for e in ordered if e.facts.get("series") == series]


def _newest_only(entries: list[_Entry]) -> list[list[_Entry]]:
    return [_last_series(entries)]


def _split_series(entries: list[_Entry]) -> list[list[_Entry]]:
    """The attempts of each series, in order of time."""
    found: dict[object, list[_Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.started):
        found.setdefault(entry.facts.get("series"), []).append(entry)
    return list(found.values())


def _has_fingerprint(entry: _Entry, fingerprint: str) -> bool:
    return entry.facts.get("fingerprint") == fingerprint


def _encode(plan: Plan, facts: Mapping[str, Any]) -> str:
    spec = asdict(plan.requested_spec or plan.spec)
    entry = {"schema": SCHEMA, "run": msgspec.to_builtins(make_identity(plan)), "spec": spec, **facts}
    return json.dumps(entry, indent=1, sort_keys=True, default=str) + "\n"


def _write(path: Path, text: str) -> None:
    with _bad_store_on_error(path):
        write_atomically(path, text)


@contextlib.contextmanager
def _bad_store_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadStore(
            what=f"cannot write to {path}",
            why=str(error),
            next="name a folder that you may write to, with space left, by --store or --output",
        ) from error
