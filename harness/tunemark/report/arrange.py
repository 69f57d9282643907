"""Results as a report: its sections in the order of a reader's questions. Every blank is said to be one, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tunemark.analysis.prices import Prices
from tunemark.analysis.scaling import Scaling, every_scaling
from tunemark.report import columns, figures
from tunemark.report.answers import answer_of, answers
from tunemark.report.costs import cost
from tunemark.report.definitions import CLAIM_NOTES, NOTES, TERMS
from tunemark.report.growth import SCALINGS, growth
from tunemark.report.labels import command_of, device_of, labels, origin, shared
from tunemark.report.report import Cell, Column, Detail, Report, Section, Table
from tunemark.report.strategies import strategies
from tunemark.report.words import Language, Say, words
from tunemark.report.workings import workings
from tunemark.results import Imported, Result
from tunemark.results.result import encode
from tunemark.results.trace import Trace

# Runs that are shown one by one. A reader of more looks for one of them, in the table or the files.
DETAILS = 60
# Runs whose figures open to how they came about; no page has more rows.
WORKED = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """Something among the runs that could not be read, and why."""

    place: str
    why: str


def arrange(
    results: Sequence[Result],
    imported: Sequence[Imported] = (),
    traces: Mapping[str, Sequence[Trace]] | None = None,
    *,
    scalings: Sequence[Scaling] | None = None,
    unread: Sequence[Unread] = (),
    prices: Prices | None = None,
    language: Language = "en",
) -> Report:
    """The report of some runs, in their order, and of what others claim, which is told apart by a table of its own.

    traces: of each run's attempts, by run_id, where their steps are at hand. unread: what else was found there.
    scalings: of these runs; None is every one that they hold, of both modes.
    """
    say = words(language)
    if not results and imported:
        return Report(
            title=say("tunemark audit"),
            sections=_claims(imported, say, alone=True),
            notes=tuple(map(say, CLAIM_NOTES)),
            language=language,
            answers=answers(results, imported, say, ()),
        )
    results, traces = _apart(results, traces or {})
    worked = [workings(r, say) for r in results[:WORKED]]
    named = labels(results, say)
    grown = tuple(every_scaling(results, prices=prices, fits=SCALINGS) if scalings is None else scalings)
    sections = [
        _throughput(results, worked, named, say),
        growth(grown, not results, say),
        strategies(results, say),
        _step(results, worked, say),
        _tokens(results, worked, named, say),
        _trace(results, traces, named, say),
        _memory(results, worked, named, say),
        _cost(results, prices, named, say),
        *_claims(imported, say),
        _environment(results, worked, named, say),
        _findings(results, unread, say),
        Section(
            key="definitions",
            title=say("What the words mean"),
            terms=tuple((say(term), say(meaning)) for term, meaning in TERMS),
        ),
    ]
    return Report(
        title=say("tunemark report"),
        sections=tuple(sections),
        notes=tuple(map(say, (*NOTES, *(CLAIM_NOTES if imported else ())))),
        language=language,
        answers=answers(results, imported, say, named),
        details=_details(results, traces, named, say),
        runs=tuple(encode(r) for r in results),
        scalings=grown,
        names=dict(zip((r.run_id for r in results), named, strict=True)),
    )


def _apart(
    results: Sequence[Result], traces: Mapping[str, Sequence[Trace]]
) -> tuple[list[Result], dict[str, list[Trace]]]:
    """Each run under an id of its own: of runs that two stores have with other attempts, the later are numbered."""
    times: Counter[str] = Counter()
    found: list[Result] = []
    drawn: dict[str, list[Trace]] = {}
    for r in results:
        times[r.run_id] += 1
        run_id = r.run_id if times[r.run_id] == 1 else f"{r.run_id}-{times[r.run_id]}"
        own = {row.name for row in r.each_attempt}
        drawn[run_id] = [each for each in traces.get(r.run_id, ()) if each.attempt in own]
        found.append(r if run_id == r.run_id else msgspec.structs.replace(r, run_id=run_id))
    return found, drawn


def _throughput(
    results: Sequence[Result], worked: Sequence[Mapping[str, str]], named: Sequence[str], say: Say
) -> Section:
    charts = figures.throughput(results, named, say)
    common = "; ".join(f"{name} {value}" for name, value in shared(results, say))
    missing = [] if results else [say("There is no run here. `tunemark run` measures one.")]
    if results and not any(r.tokens_per_s for r in results):
        missing.append(say("No run has a rate: the findings say how each ended."))
    return Section(
        key="throughput",
        title=say("Throughput by size"),
        lead=say("All runs share: {common}.", common=common) if common and len(results) > 1 else common,
        charts=charts,
        tables=(columns.table("throughput", say("Every run"), columns.THROUGHPUT, results, worked, say),),
        missing=tuple(missing),
    )


def _step(results: Sequence[Result], worked: Sequence[Mapping[str, str]], say: Say) -> Section:
    chart = figures.step_parts(results, say)
    tables = []
    if any(r.breakdown_s for r in results):
        fields = columns.phases(results, "breakdown_s")
        tables.append(columns.table("step-parts", say("Parts of a step"), fields, results, worked, say))
    tables.append(
        columns.table("steps", say("Step times, and what no rate counts"), columns.STEP, results, worked, say)
    )
    if any(r.setup_s for r in results):
        fields = columns.phases(results, "setup_s")
        tables.append(columns.table("set-up", say("Set-up"), fields, results, worked, say))
    tables += _beside(results, worked, say)
    missing = say(
        "No run was measured part by part. `tunemark run ... --breakdown` measures a run a second time with every part "
        "of its steps timed."
    )
    return Section(
        key="step",
        title=say("Where a step's time goes"),
        charts=(chart,) if chart else (),
        tables=tuple(tables),
        missing=() if chart or not results else (missing,),
    )


def _beside(results: Sequence[Result], worked: Sequence[Mapping[str, str]], say: Say) -> list[Table]:
    """What was done before and after the timed part."""
    tables = []
    if any(r.held_out for r in results):
        tables.append(columns.table("held-out", say("Held-out loss"), columns.HELD_OUT, results, worked, say))
    if told := [(r, r.completion) for r in results if r.completion]:
        named = (
            ("run_id", "run"),
            ("prompt", "prompt"),
            ("completion_before", "before training"),
            ("completion_after", "after training"),
        )
        tables.append(
            Table(
                key="completions",
                title=say("Completions"),
                columns=tuple(Column(name=name, title=say(title)) for name, title in named),
                rows=tuple((r.run_id, c.prompt, c.before, c.after) for r, c in told),
                per_run=False,
                runs=tuple(r.run_id for r, _ in told),
                origins=tuple(origin(r) for r, _ in told),
            )
        )
    if any(r.saved for r in results):
        tables.append(columns.table("saved", say("Saved models"), columns.SAVED, results, worked, say))
    return tables


def _tokens(results: Sequence[Result], worked: Sequence[Mapping[str, str]], named: Sequence[str], say: Say) -> Section:
    chart = figures.slots(results, named, say)
    return Section(
        key="tokens",
        title=say("Padding, and three ways to count tokens"),
        lead=say("The same steps, three numerators: a figure without its count of tokens cannot be compared."),
        charts=(chart,) if chart else (),
        tables=(columns.table("tokens", say("Three rates"), columns.TOKENS, results, worked, say),),
        missing=() if chart or not results else (say("No run has timed steps, so no token was counted."),),
    )


def _trace(results: Sequence[Result], traces: Mapping[str, Sequence[Trace]], named: Sequence[str], say: Say) -> Section:
    found = answer_of(results)
    charts = []
    if found is not None:
        name = next(name for r, name in zip(results, named, strict=True) if r is found)
        for number, trace in enumerate(traces.get(found.run_id, ()), 1):
            charts.append(figures.steps(found, name, trace, number, say))
    missing = say(
        "The steps' instants are not at hand: they lie in the store's records, not in this folder. "
        "`tunemark report STORE -o DIR` draws them."
    )
    return Section(
        key="trace",
        title=say("Step by step"),
        lead=say("The run of the answer above; every other run's steps are in its own entry below."),
        charts=tuple(charts[:1]),
        missing=() if charts or not results else (missing,),
    )


def _memory(results: Sequence[Result], worked: Sequence[Mapping[str, str]], named: Sequence[str], say: Say) -> Section:
    chart = figures.memory(results, named, say)
    missing = [] if chart or not results else [say("No device said how much memory a run held.")]
    return Section(
        key="memory",
        title=say("Memory, power and temperature"),
        charts=(chart,) if chart else (),
        tables=(columns.table("memory", say("Memory and telemetry"), columns.MEMORY, results, worked, say),),
        missing=tuple(missing),
    )


def _cost(results: Sequence[Result], prices: Prices | None, named: Sequence[str], say: Say) -> Section:
    title = say("Cost of a million tokens")
    if prices is None:
        words = say(
            "No price is known. `tunemark report ... --prices FILE` takes yours, for an hour of a size or a chip."
        )
        return Section(key="cost", title=title, missing=(words,) if results else ())
    costs = [cost(r, prices) for r in results]
    priced = [prices.of(r) for r in results]
    column = Column(
        name="cost_per_million_tokens",
        title=say("cost"),
        unit=say("{currency} per million content tokens", currency=prices.currency),
    )
    hour = Column(name="price_per_hour", title=say("price"), unit=f"{prices.currency}/h")
    found = {}
    for i, (r, c, p) in enumerate(zip(results, costs, priced, strict=True)):
        if c is not None and p is not None and r.tokens_per_s is not None:
            found[i, column.name] = (
                f"{p:.6g} {prices.currency}/h / 3600 / {r.tokens_per_s.value:.6g} tokens/s x 1,000,000"
            )
    lacking = dict.fromkeys(f"{device_of(r)} ({r.chip})" for r, p in zip(results, priced, strict=True) if p is None)
    missing = [say("The price file has no price for {names}.", names=", ".join(lacking))] if lacking else []
    if any(r.simulated for r in results):
        missing.append(say("A simulated rate has no cost."))
    chart = figures.costs(results, prices, named, say)
    rows = tuple((r.run_id, p, c) for r, p, c in zip(results, priced, costs, strict=True))
    table = Table(
        key="cost",
        title=say("Price and cost"),
        columns=(Column(name="run_id", title=say("run")), hour, column),
        rows=rows,
        workings=found,
        runs=tuple(r.run_id for r in results),
        origins=tuple(origin(r) for r in results),
    )
    return Section(key="cost", title=title, charts=(chart,) if chart else (), tables=(table,), missing=tuple(missing))


def _environment(
    results: Sequence[Result], worked: Sequence[Mapping[str, str]], named: Sequence[str], say: Say
) -> Section:
    commands = tuple((name, command_of(r)) for r, name in list(zip(results, named, strict=True))[:DETAILS])
    same = _facts(results[0].environment) if results else {}
    for r in results[1:]:
        own = _facts(r.environment)
        if any(own.get(name) != value for name, value in same.items()):
            same = {name: value for name, value in same.items() if own.get(name) == value}
    table = Table(
        key="environment",
        title=say("Environment that all runs share"),
        columns=(Column(name="fact", title=say("fact")), Column(name="value", title=say("value"))),
        rows=tuple(same.items()),
        per_run=False,
    )
    settings = columns.table("runs", say("Settings"), columns.SETTINGS, results, worked, say)
    words = say("No environment was recorded, so nobody can say what this was measured on.")
    return Section(
        key="environment",
        title=say("Environment, and how to measure it again"),
        commands=commands,
        tables=(*((table,) if same else ()), settings),
        missing=(words,) if results and not any(r.environment for r in results) else (),
    )


# Of an environment, what is an instant, a name of its own, or too long to read.
_UNREAD = ("started_utc", "series", "fingerprint", "watched", "peak.tried", "verification")


def _facts(environment: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in environment.items():
        name = f"{prefix}{key}"
        if name in _UNREAD:
            continue
        if isinstance(value, dict):
            found.update(_facts(value, f"{name}."))
        elif value is not None:
            found[name] = str(value)
    return found


def _findings(results: Sequence[Result], unread: Sequence[Unread], say: Say) -> Section:
    told = tuple((r.run_id, f.severity, f.rule, f.message) for r in results for f in r.findings)
    tables = [
        Table(
            key="findings",
            title=say("Findings"),
            columns=_finding_columns(say),
            rows=told,
            per_run=False,
            runs=tuple(r.run_id for r in results for _ in r.findings),
        )
    ]
    if unread:
        tables.append(
            Table(
                key="unread",
                title=say("Not read"),
                columns=(Column(name="place", title=say("place")), Column(name="why", title=say("why"))),
                rows=tuple((each.place, each.why) for each in unread),
                per_run=False,
            )
        )
    missing = say("{n} entries could not be read, and no figure here counts them.", n=len(unread))
    if len(unread) == 1:
        missing = say("One entry could not be read, and no figure here counts it.")
    return Section(
        key="findings",
        title=say("Findings"),
        lead=say("What was noticed about each run, in the words of the rule that noticed it, with its arithmetic."),
        tables=tuple(tables),
        missing=(missing,) if unread else (),
    )


def _finding_columns(say: Say, key: str = "run_id", title: str = "run") -> tuple[Column, ...]:
    named = ((key, title), ("severity", "severity"), ("rule", "rule"), ("message", "what was noticed"))
    return tuple(Column(name=name, title=say(title)) for name, title in named)


def _details(
    results: Sequence[Result], traces: Mapping[str, Sequence[Trace]], named: Sequence[str], say: Say
) -> tuple[Detail, ...]:
    facts = [_facts(r.environment) for r in results[:DETAILS]]
    found = []
    for r, name, own in zip(results, named, facts, strict=False):
        drawn = tuple(traces.get(r.run_id, ()))
        rest = {k: v for k, v in own.items() if any(f.get(k) != v for f in facts)}
        started = r.environment.get("started_utc")
        if started:
            rest = {"started_utc": str(started), **rest}
        (sentence,) = answers([r], (), say, (name,))
        found.append(
            Detail(
                run_id=r.run_id,
                title=name,
                origin=origin(r),
                status=r.status,
                verdict=r.verdict,
                answer=f"{sentence.text} {sentence.detail}",
                command=command_of(r),
                attempts=_attempts(r, say),
                traces=drawn,
                charts=tuple(figures.steps(r, name, t, i, say) for i, t in enumerate(drawn, 1)),
                findings=Table(
                    title=say("Findings"),
                    columns=_finding_columns(say)[1:],
                    rows=tuple((f.severity, f.rule, f.message) for f in r.findings),
                    per_run=False,
                ),
                facts=tuple(rest.items()),
            )
        )
    return tuple(found)


def _attempts(r: Result, say: Say) -> Table:
    named = (
        ("name", "attempt", ""),
        ("status", "status", ""),
        ("reason", "stopped by", ""),
        ("tokens_per_s", "content", "tokens/s"),
        ("steps_measured", "timed steps", ""),
        ("warmup_steps", "warm-up steps", ""),
        ("interval_s", "timed", "s"),
        ("evidence", "evidence", ""),
    )
    return Table(
        key="attempts",
        title=say("Attempts"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=tuple(tuple(getattr(row, n) for n, _, _ in named) for row in r.each_attempt),
        per_run=False,
    )


def _claims(rows: Sequence[Imported], say: Say, *, alone: bool = False) -> tuple[Section, ...]:
    if not rows:
        return ()
    ways = list(dict.fromkeys(way for row in rows for way in row.tokens_per_s_rederived))
    found = [Column(name=name, title=say(title), unit=unit) for name, title, unit in _CLAIM]
    found += [
        Column(name=f"tokens_per_s_{way.replace('-', '_')}", title=say("by {way}", way=way), unit="tokens/s")
        for way in ways
    ]
    cells: list[tuple[Cell, ...]] = [
        (
            *(columns.cell(getattr(row, name)) for name, _, _ in _CLAIM),
            *(row.tokens_per_s_rederived.get(w) for w in ways),
        )
        for row in rows
    ]
    worked = {
        (i, f"tokens_per_s_{way.replace('-', '_')}"): text
        for i, row in enumerate(rows)
        for way, text in row.arithmetic.items()
    }
    told = [(row.id, f.severity, f.rule, f.message) for row in rows for f in row.findings]
    claims = Table(
        key="claims",
        title=say("Imported claims"),
        columns=tuple(found),
        rows=tuple(cells),
        per_run=alone,
        workings=worked,
        origins=tuple(row.kind for row in rows),
    )
    findings = Table(
        key="claim-findings",
        title=say("Findings on imported claims"),
        columns=_finding_columns(say, "id", "claim"),
        rows=tuple(told),
        per_run=False,
    )
    chart = figures.claims(rows, say)
    return (
        Section(
            key="claims",
            title=say("Imported claims"),
            lead=say(
                "Not measured here: read from somebody else's log or table, and derived anew where that is possible."
            ),
            charts=(chart,) if chart else (),
            tables=(claims, findings),
        ),
    )


_CLAIM = (
    ("id", "claim", ""),
    ("kind", "origin", ""),
    ("source", "source", ""),
    ("tool", "tool", ""),
    ("counts", "counts", ""),
    ("model", "model", ""),
    ("device", "device", ""),
    ("count", "count", ""),
    ("precision", "precision", ""),
    ("sequence", "sequence", "tokens"),
    ("global_batch", "global batch", "sequences"),
    ("verdict", "verdict", ""),
    ("mfu_implied", "implied MFU", "1"),
    ("tokens_per_s_claimed", "claimed", "tokens/s"),
)
