"""The entry of each run: its attempts, raw steps, findings, command, and what its environment has of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from tunemark.loading import MAX_DETAILS
from tunemark.report import run_charts
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.headlines import make_headlines
from tunemark.report.labels import command_of, origin_of
from tunemark.report.report import Column, ReportTable, RunDetail, make_columns, make_own_table
from tunemark.report.translation import Translate
from tunemark.results import Result
from tunemark.results.trace import Trace


def make_details(
    results: Sequence[Result], traces: Mapping[str, Sequence[Trace]], names: Sequence[str], tr: Translate
) -> tuple[RunDetail, ...]:
    """The entries of the first runs, at most MAX_DETAILS."""
    facts = [flatten_facts(r.environment) for r in results[:MAX_DETAILS]]
    found = []
    for r, name, own in zip(results, names, facts, strict=False):
        run_traces = tuple(traces.get(r.run_id, ()))
        rest = {k: v for k, v in own.items() if any(f.get(k) != v for f in facts)}
        started = r.environment.get("started_utc")
        if started:
            rest = {"started_utc": str(started), **rest}
        if r.seal:
            rest = {"seal": r.seal, **rest}
        (sentence,) = make_headlines([r], (), tr, (name,))
        found.append(
            RunDetail(
                run_id=r.run_id,
                title=name,
                origin=origin_of(r),
                status=r.status,
                verdict=r.verdict,
                summary=f"{sentence.text} {sentence.detail}",
                command=command_of(r),
                attempts=_attempts(r, tr),
                traces=run_traces,
                charts=tuple(run_charts.step_time_chart(r, name, t, i, tr) for i, t in enumerate(run_traces, 1)),
                findings=ReportTable(
                    title=tr("Findings"),
                    columns=finding_columns(tr)[1:],
                    rows=tuple((f.severity, f.rule, translate_finding(f.message, tr)) for f in r.findings),
                    per_run=False,
                ),
                facts=tuple(rest.items()),
            )
        )
    return tuple(found)


def _attempts(r: Result, tr: Translate) -> ReportTable:
    fields = (
        ("name", "attempt"), ("status", "status"), ("reason", "stopped by"), ("tokens_per_s", "content", "tokens/s"),
        ("steps_measured", "timed steps"), ("warmup_steps", "warm-up steps"), ("interval_s", "timed", "s"),
        ("evidence", "evidence"),
    )  # fmt: skip
    said = (structs.replace(row, evidence=translate_finding(row.evidence, tr)) for row in r.each_attempt)
    rows = (tuple(getattr(row, name) for name, *_ in fields) for row in said)
    return make_own_table("attempts", tr("Attempts"), fields, rows, tr)


def finding_columns(tr: Translate, key: str = "run_id", title: str = "run") -> tuple[Column, ...]:
    """Columns of a table of findings. key, title: of the column that says what each is about."""
    fields = ((key, title), ("severity", "severity"), ("rule", "rule"), ("message", "what was noticed"))
    return make_columns(fields, tr)


# Facts of an environment that are not shown: instants, names, and values too long to read.
_HIDDEN_FACTS = ("started_utc", "series", "fingerprint", "watched", "peak.tried", "verification")


def flatten_facts(environment: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The facts of an environment that are shown, by their dotted names."""
    found: dict[str, str] = {}
    for key, value in environment.items():
        name = f"{prefix}{key}"
        if name in _HIDDEN_FACTS:
            continue
        if isinstance(value, dict):
            found.update(flatten_facts(value, f"{name}."))
        elif value is not None:
            found[name] = str(value)
    return found
