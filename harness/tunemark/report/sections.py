"""Makes a report of results: its sections in order, each with an explanation of the data that it lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from tunemark.analysis.fit import list_fits
from tunemark.analysis.ladder import list_ladders
from tunemark.analysis.prices import Prices
from tunemark.analysis.scaling import compute_all_scalings
from tunemark.analysis.scaling_types import Scaling
from tunemark.loading import MAX_DETAILS, UnreadEntry
from tunemark.report import columns, run_charts
from tunemark.report.claims_section import make_claims_sections
from tunemark.report.costs import cost_per_million_tokens
from tunemark.report.definitions import CLAIM_NOTES, NOTES, TERMS
from tunemark.report.derivations import format_derivations
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.fit_section import make_fit_section
from tunemark.report.headlines import find_headline_run, make_headlines
from tunemark.report.labels import command_of, device_of, make_labels, origin_of, shared_settings
from tunemark.report.ladder_section import make_ladder_section
from tunemark.report.report import Column, Report, ReportTable, Section, make_own_table
from tunemark.report.run_details import finding_columns, flatten_facts, make_details
from tunemark.report.scaling_section import MAX_SCALINGS, make_scaling_headlines, make_scaling_section
from tunemark.report.strategies_section import make_strategies_section
from tunemark.report.translation import Language, Translate, make_translator
from tunemark.results import ImportedClaim, Result
from tunemark.results.result import encode_result
from tunemark.results.studies import Study
from tunemark.results.trace import Trace

# Runs whose values have derivations; no page has more rows.
_MAX_DERIVATIONS = 400

# Of each run, by column.
_Derivations = Sequence[Mapping[str, str]]


def make_report(
    results: Sequence[Result],
    imported: Sequence[ImportedClaim] = (),
    traces: Mapping[str, Sequence[Trace]] | None = None,
    *,
    scalings: Sequence[Scaling] | None = None,
    studies: Sequence[Study] = (),
    unread: Sequence[UnreadEntry] = (),
    prices: Prices | None = None,
    language: Language = "en",
    more: Sequence[Section] = (),
) -> Report:
    """The report of some runs, in their order, and of imported claims, in separate tables.

    traces: of each run's attempts, by run_id, if their steps are available. unread: entries that could not be read.
    scalings: of these runs; None finds all of both modes. studies: whose runs are among these. more: sections that
    come first.
    """
    tr = make_translator(language)
    if not results and imported:
        return Report(
            title=tr("tunemark audit"),
            sections=make_claims_sections(imported, tr, alone=True),
            notes=tuple(map(tr, CLAIM_NOTES)),
            language=language,
            headlines=make_headlines(results, imported, tr, ()),
        )
    results, traces = _number_duplicates(results, traces or {})
    derivations = [format_derivations(r, tr) for r in results[:_MAX_DERIVATIONS]]
    names = make_labels(results, tr)
    shown_scalings = tuple(
        compute_all_scalings(results, prices=prices, fits=MAX_SCALINGS) if scalings is None else scalings
    )
    ladders, fits = list_ladders(studies, results), list_fits(studies, results)
    strategies, undecided = make_strategies_section(results, tr)
    sections = [
        *more,
        _throughput(results, derivations, names, tr),
        *([make_ladder_section(ladders, tr)] if ladders else []),
        *([make_fit_section(fits, tr)] if fits else []),
        make_scaling_section(shown_scalings, not results, tr),
        strategies,
        _step(results, derivations, tr),
        _tokens(results, derivations, names, tr),
        _trace(results, traces, names, tr),
        _memory(results, derivations, names, tr),
        _cost(results, prices, names, tr),
        *make_claims_sections(imported, tr),
        _environment(results, derivations, names, tr),
        _findings(results, unread, tr),
        Section(
            key="definitions",
            title=tr("What the words mean"),
            terms=tuple((tr(term), tr(meaning)) for term, meaning in TERMS),
        ),
    ]
    return Report(
        title=tr("tunemark report"),
        sections=tuple(sections),
        notes=tuple(map(tr, (*NOTES, *(CLAIM_NOTES if imported else ())))),
        language=language,
        headlines=(
            *make_headlines(results, imported, tr, names, undecided),
            *make_scaling_headlines(shown_scalings, results, tr),
        ),
        details=make_details(results, traces, names, tr),
        runs=tuple(encode_result(r) for r in results),
        scalings=shown_scalings,
        names=dict(zip((r.run_id for r in results), names, strict=True)),
    )


def _number_duplicates(
    results: Sequence[Result], traces: Mapping[str, Sequence[Trace]]
) -> tuple[list[Result], dict[str, list[Trace]]]:
    """Make run_ids unique: a run that two stores have with different attempts gets a number the second time."""
    counts: Counter[str] = Counter()
    found: list[Result] = []
    run_traces: dict[str, list[Trace]] = {}
    for r in results:
        counts[r.run_id] += 1
        run_id = r.run_id if counts[r.run_id] == 1 else f"{r.run_id}-{counts[r.run_id]}"
        attempts = {row.name for row in r.each_attempt}
        run_traces[run_id] = [each for each in traces.get(r.run_id, ()) if each.attempt in attempts]
        found.append(r if run_id == r.run_id else msgspec.structs.replace(r, run_id=run_id))
    return found, run_traces


def _throughput(results: Sequence[Result], derivations: _Derivations, names: Sequence[str], tr: Translate) -> Section:
    charts = run_charts.throughput_charts(results, names, tr)
    common = "; ".join(f"{name} {value}" for name, value in shared_settings(results, tr))
    missing = [] if results else [tr("There is no run here. `tunemark run` measures one.")]
    if results and not any(r.tokens_per_s for r in results):
        missing.append(tr("No run has a rate: the findings say how each ended."))
    return Section(
        key="throughput",
        title=tr("Throughput by size"),
        intro=tr("All runs share: {common}.", common=common) if common and len(results) > 1 else common,
        charts=charts,
        tables=(columns.make_table("throughput", tr("Every run"), columns.THROUGHPUT, results, derivations, tr),),
        missing=tuple(missing),
    )


def _step(results: Sequence[Result], derivations: _Derivations, tr: Translate) -> Section:
    chart = run_charts.step_parts_chart(results, tr)
    tables = []
    if any(r.breakdown_s for r in results):
        fields = columns.phase_columns(results, "breakdown_s")
        tables.append(columns.make_table("step-parts", tr("Parts of a step"), fields, results, derivations, tr))
    tables.append(
        columns.make_table("steps", tr("Step times, and what no rate counts"), columns.STEP, results, derivations, tr)
    )
    if any(r.setup_s for r in results):
        fields = columns.phase_columns(results, "setup_s")
        tables.append(columns.make_table("set-up", tr("Set-up"), fields, results, derivations, tr))
    tables += _untimed_tables(results, derivations, tr)
    missing = tr(
        "No run was measured part by part. `tunemark run ... --breakdown` measures a run a second time with every part "
        "of its steps timed."
    )
    return Section(
        key="step",
        title=tr("Where a step's time goes"),
        charts=(chart,) if chart else (),
        tables=tuple(tables),
        missing=() if chart or not results else (missing,),
    )


def _untimed_tables(results: Sequence[Result], derivations: _Derivations, tr: Translate) -> list[ReportTable]:
    """Tables of what was done before and after the timed part."""
    tables = []
    if any(r.held_out for r in results):
        tables.append(columns.make_table("held-out", tr("Held-out loss"), columns.HELD_OUT, results, derivations, tr))
    if completed := [(r, r.completion) for r in results if r.completion]:
        fields = (("run_id", "run"), ("prompt", "prompt"), ("completion_before", "before training"),
                  ("completion_after", "after training"))  # fmt: skip
        rows = ((r.run_id, c.prompt, c.before, c.after) for r, c in completed)
        runs, origins = tuple(r.run_id for r, _ in completed), tuple(origin_of(r) for r, _ in completed)
        tables.append(make_own_table("completions", tr("Completions"), fields, rows, tr, runs=runs, origins=origins))
    if any(r.saved for r in results):
        tables.append(columns.make_table("saved", tr("Saved models"), columns.SAVED, results, derivations, tr))
    return tables


def _tokens(results: Sequence[Result], derivations: _Derivations, names: Sequence[str], tr: Translate) -> Section:
    chart = run_charts.slots_chart(results, names, tr)
    tables = [columns.make_table("tokens", tr("Three rates"), columns.TOKENS, results, derivations, tr)]
    if any(r.trainer != "tunemark" for r in results):
        title = tr("What each trainer states of itself")
        tables.append(columns.make_table("trainers", title, columns.TRAINERS, results, derivations, tr))
    return Section(
        key="tokens",
        title=tr("Padding, and three ways to count tokens"),
        intro=tr("The same steps, three numerators: a figure without its count of tokens cannot be compared."),
        charts=(chart,) if chart else (),
        tables=tuple(tables),
        missing=() if chart or not results else (tr("No run has timed steps, so no token was counted."),),
    )


def _trace(
    results: Sequence[Result], traces: Mapping[str, Sequence[Trace]], names: Sequence[str], tr: Translate
) -> Section:
    found = find_headline_run(results)
    charts = []
    if found is not None:
        name = next(name for r, name in zip(results, names, strict=True) if r is found)
        for number, trace in enumerate(traces.get(found.run_id, ()), 1):
            charts.append(run_charts.step_time_chart(found, name, trace, number, tr))
    missing = tr(
        "The steps' instants are not at hand: they lie in the store's records, not in this folder. "
        "`tunemark report STORE -o DIR` draws them."
    )
    return Section(
        key="trace",
        title=tr("Step by step"),
        intro=tr("The run of the answer above; every other run's steps are in its own entry below."),
        charts=tuple(charts[:1]),
        missing=() if charts or not results else (missing,),
    )


def _memory(results: Sequence[Result], derivations: _Derivations, names: Sequence[str], tr: Translate) -> Section:
    chart = run_charts.memory_chart(results, names, tr)
    missing = [] if chart or not results else [tr("No device said how much memory a run held.")]
    return Section(
        key="memory",
        title=tr("Memory, power and temperature"),
        charts=(chart,) if chart else (),
        tables=(columns.make_table("memory", tr("Memory and telemetry"), columns.MEMORY, results, derivations, tr),),
        missing=tuple(missing),
    )


def _cost(results: Sequence[Result], prices: Prices | None, names: Sequence[str], tr: Translate) -> Section:
    title = tr("Cost of a million tokens")
    if prices is None:
        message = tr(
            "No price is known. `tunemark report ... --prices FILE` takes yours, for an hour of a size or a chip."
        )
        return Section(key="cost", title=title, missing=(message,) if results else ())
    costs = [cost_per_million_tokens(r, prices) for r in results]
    hourly = [prices.hourly_price(r) for r in results]
    column = Column(
        name="cost_per_million_tokens",
        title=tr("cost"),
        unit=tr("{currency} per million content tokens", currency=prices.currency),
    )
    hour = Column(name="price_per_hour", title=tr("price"), unit=f"{prices.currency}/h")
    found = {}
    for i, (r, c, p) in enumerate(zip(results, costs, hourly, strict=True)):
        if c is not None and p is not None and r.tokens_per_s is not None:
            found[i, column.name] = (
                f"{p:.6g} {prices.currency}/h / 3600 / {r.tokens_per_s.value:.6g} tokens/s x 1,000,000"
            )
    unpriced = dict.fromkeys(f"{device_of(r)} ({r.chip})" for r, p in zip(results, hourly, strict=True) if p is None)
    missing = [tr("The price file has no price for {names}.", names=", ".join(unpriced))] if unpriced else []
    if any(r.simulated for r in results):
        missing.append(tr("A simulated rate has no cost."))
    chart = run_charts.cost_chart(results, prices, names, tr)
    rows = tuple((r.run_id, p, c) for r, p, c in zip(results, hourly, costs, strict=True))
    table = ReportTable(
        key="cost",
        title=tr("Price and cost"),
        columns=(Column(name="run_id", title=tr("run")), hour, column),
        rows=rows,
        derivations=found,
        runs=tuple(r.run_id for r in results),
        origins=tuple(origin_of(r) for r in results),
    )
    return Section(key="cost", title=title, charts=(chart,) if chart else (), tables=(table,), missing=tuple(missing))


def _environment(results: Sequence[Result], derivations: _Derivations, names: Sequence[str], tr: Translate) -> Section:
    commands = tuple((name, command_of(r)) for r, name in list(zip(results, names, strict=True))[:MAX_DETAILS])
    shared_facts = flatten_facts(results[0].environment) if results else {}
    for r in results[1:]:
        own = flatten_facts(r.environment)
        if any(own.get(name) != value for name, value in shared_facts.items()):
            shared_facts = {name: value for name, value in shared_facts.items() if own.get(name) == value}
    fields = (("fact", "fact"), ("value", "value"))
    table = make_own_table("environment", tr("Environment that all runs share"), fields, shared_facts.items(), tr)
    settings = columns.make_table("runs", tr("Settings"), columns.SETTINGS, results, derivations, tr)
    message = tr("No environment was recorded, so nobody can say what this was measured on.")
    return Section(
        key="environment",
        title=tr("Environment, and how to measure it again"),
        commands=commands,
        tables=(*((table,) if shared_facts else ()), settings),
        missing=(message,) if results and not any(r.environment for r in results) else (),
    )


def _findings(results: Sequence[Result], unread: Sequence[UnreadEntry], tr: Translate) -> Section:
    rows = tuple((r.run_id, f.severity, f.rule, translate_finding(f.message, tr)) for r in results for f in r.findings)
    tables = [
        ReportTable(
            key="findings",
            title=tr("Findings"),
            columns=finding_columns(tr),
            rows=rows,
            per_run=False,
            runs=tuple(r.run_id for r in results for _ in r.findings),
        )
    ]
    if unread:
        fields = (("place", "place"), ("why", "why"))
        places = ((each.place, each.why) for each in unread)
        tables.append(make_own_table("unread", tr("Not read"), fields, places, tr))
    missing = tr("{n} entries could not be read, and no figure here counts them.", n=len(unread))
    if len(unread) == 1:
        missing = tr("One entry could not be read, and no figure here counts it.")
    return Section(
        key="findings",
        title=tr("Findings"),
        intro=tr("What was noticed about each run, in the words of the rule that noticed it, with its arithmetic."),
        tables=tuple(tables),
        missing=(missing,) if unread else (),
    )
