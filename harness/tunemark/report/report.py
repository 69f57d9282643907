"""What a report holds, in the order in which it is read: sections of sentences, charts and tables with units.

It knows no file format and rounds nothing but in sentences; `arrange` (arrange.py) makes one from results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunemark.analysis.scaling import Scaling
from tunemark.report.charts import Chart, Origin
from tunemark.report.table import Cell as Cell
from tunemark.report.table import Column as Column
from tunemark.report.table import Table as Table
from tunemark.report.words import Language
from tunemark.results.trace import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One sentence. value: the part of it to be seen first, empty where there is none. detail: how sure that is."""

    text: str
    detail: str
    value: str
    verdict: str
    origin: Origin
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """lead: what is shown and how it is defined. missing: what is not there, and how to get it."""

    key: str
    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    """(what it measures, the command)."""
    terms: tuple[tuple[str, str], ...] = ()
    """(term, its definition)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """All of one run: its attempts, its raw steps where they are at hand, and how to measure it again."""

    run_id: str
    title: str
    origin: Origin
    status: str
    verdict: str
    answer: str
    command: str
    attempts: Table
    traces: tuple[Trace, ...]
    charts: tuple[Chart, ...]
    findings: Table
    facts: tuple[tuple[str, str], ...]
    """Of its environment, beside what all runs share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a format renders. notes: what a reader must know to read the tables. details: of the runs, or of the first
    of very many. runs: each result as it is stored, a line of JSON, for programs. names: of runs, by run_id.
    scalings: whole, for programs."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    language: Language = "en"
    answers: tuple[Answer, ...] = ()
    details: tuple[Detail, ...] = ()
    runs: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    scalings: tuple[Scaling, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections, in order."""
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The charts of all sections, in order."""
        return tuple(chart for section in self.sections for chart in section.charts)
