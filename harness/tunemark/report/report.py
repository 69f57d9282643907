"""The content of a report in reading order: sections of sentences, charts, and tables with units.

It is independent of file formats, and only its sentences are rounded; `make_report` (sections.py) makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunemark.analysis.scaling_types import Scaling
from tunemark.report.chart_types import Chart, Origin
from tunemark.report.table import Cell as Cell
from tunemark.report.table import Column as Column
from tunemark.report.table import ReportTable as ReportTable
from tunemark.report.table import make_columns as make_columns
from tunemark.report.table import make_own_table as make_own_table
from tunemark.report.translation import Language
from tunemark.results.trace import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """A result in one sentence. value: the part to emphasise, empty if there is none. detail: its uncertainty."""

    text: str
    detail: str
    value: str
    verdict: str
    origin: Origin
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """intro: what is shown and how it is defined. missing: which data is absent, and how to get it."""

    key: str
    title: str
    intro: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    missing: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    """(what it measures, the command)."""
    terms: tuple[tuple[str, str], ...] = ()
    """(term, its definition)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetail:
    """Everything about one run: attempts, raw steps if available, and the command to measure it again."""

    run_id: str
    title: str
    origin: Origin
    status: str
    verdict: str
    summary: str
    command: str
    attempts: ReportTable
    traces: tuple[Trace, ...]
    charts: tuple[Chart, ...]
    findings: ReportTable
    facts: tuple[tuple[str, str], ...]
    """(name, value) of its environment, without what all runs share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The input of a format plugin. notes: what readers need to understand the tables. details: of the first runs,
    at most MAX_DETAILS of loading.py. runs: each result as its stored line of JSON, for programs. names: of runs, by
    run_id. scalings: complete, for programs."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    language: Language = "en"
    headlines: tuple[Headline, ...] = ()
    details: tuple[RunDetail, ...] = ()
    runs: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    scalings: tuple[Scaling, ...] = ()

    @property
    def tables(self) -> tuple[ReportTable, ...]:
        """The tables of all sections, in order."""
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The charts of all sections, in order."""
        return tuple(chart for section in self.sections for chart in section.charts)
