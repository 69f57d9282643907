"""A report as Markdown: the answers, then every table with its units in the header, rounded for people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tunemark.report import Report, Table
from tunemark.report.rounding import escaped
from tunemark.report.words import Say, words
from tunemark_formats import cells


def render(report: Report) -> bytes:
    """The report as UTF-8."""
    say = words(report.language)
    parts = [f"# {escaped(report.title)}"]
    for answer in report.answers:
        verdict = f" **{escaped(say(answer.verdict))}**" if answer.verdict else ""
        parts.append(" ".join(filter(None, [escaped(answer.text), escaped(answer.detail)])) + verdict)
    parts.append("\n".join(f"- {note}" for note in report.notes))
    for section in report.sections:
        if section.title:
            parts.append(f"## {escaped(section.title)}")
        parts += [escaped(words) for words in (section.lead, *section.missing) if words]
        for table in section.tables:
            parts += [f"### {escaped(table.title)}", _table(table, report, say) if cells.told(table) else say("none")]
        parts += [f"{escaped(name)}:\n\n{_code(command)}" for name, command in section.commands]
        parts += ["\n".join(f"- **{escaped(term)}**: {escaped(text)}" for term, text in section.terms)] * bool(
            section.terms
        )
    return ("\n\n".join(parts) + "\n").encode()


def _table(table: Table, report: Report, say: Say) -> str:
    kept = cells.kept(table)
    lines = ["| " + " | ".join(escaped(cells.title(table.columns[i], say)) for i in kept) + " |"]
    lines.append("|" + "".join("---:|" if cells.is_numeric(table, i) else "---|" for i in kept))
    told = cells.told(table)
    columns = [_column(table, i, told, report, say) for i in kept]
    lines += [f"| {' | '.join(words)} |" for words in zip(*columns, strict=True)]
    if len(told) < len(table.rows):
        lines += ["", cells.silent(len(table.rows) - len(told), say)]
    return "\n".join(lines)


def _column(table: Table, i: int, told: Sequence[int], report: Report, say: Say) -> list[str]:
    """A column's texts. Of thousands of runs most settings are alike, and are written once."""
    column = table.columns[i]
    every = [table.rows[number][i] for number in told]
    # 1, 1.0 and True are one key, and three texts.
    keys: Sequence[Hashable] = every if len({type(cell) for cell in every}) == 1 else [(type(c), c) for c in every]
    known: dict[Hashable, str] = {}
    for key, cell in dict(zip(keys, every, strict=True)).items():
        text = cells.shown(cell, column, say)
        known[key] = escaped(report.names.get(text, text) if column.name == "run_id" else text)
    return [known[key] for key in keys]


def _code(command: str) -> str:
    """A command as a block that no backtick in it can end."""
    return "\n".join(f"    {line}" for line in command.splitlines())
