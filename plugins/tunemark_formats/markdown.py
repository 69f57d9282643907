"""A report as Markdown: the headlines, then every table with units in its header, rounded for readers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tunemark.markdown import escape, markdown_table
from tunemark.report import Report, ReportTable
from tunemark.report.translation import Translate, make_translator
from tunemark_formats import cells


def render(report: Report) -> bytes:
    """The report as UTF-8."""
    tr = make_translator(report.language)
    parts = [f"# {escape(report.title)}"]
    for headline in report.headlines:
        verdict = f" **{escape(tr(headline.verdict))}**" if headline.verdict else ""
        parts.append(" ".join(filter(None, [escape(headline.text), escape(headline.detail)])) + verdict)
    parts.append("\n".join(f"- {note}" for note in report.notes))
    for section in report.sections:
        if section.title:
            parts.append(f"## {escape(section.title)}")
        parts += [escape(text) for text in (section.intro, *section.missing) if text]
        for table in section.tables:
            parts += [
                f"### {escape(table.title)}",
                _table(table, report, tr) if cells.informative_rows(table) else tr("none"),
            ]
        parts += [f"{escape(name)}:\n\n{_code(command)}" for name, command in section.commands]
        parts += ["\n".join(f"- **{escape(term)}**: {escape(text)}" for term, text in section.terms)] * bool(
            section.terms
        )
    return ("\n\n".join(parts) + "\n").encode()


def _table(table: ReportTable, report: Report, tr: Translate) -> str:
    shown_columns = cells.informative_columns(table)
    header = [escape(cells.format_header(table.columns[i], tr)) for i in shown_columns]
    align = "".join("<>"[cells.is_numeric(table, i)] for i in shown_columns)
    shown_rows = cells.informative_rows(table)
    columns = [_column(table, i, shown_rows, report, tr) for i in shown_columns]
    lines = [markdown_table(header, zip(*columns, strict=True), align)]
    if len(shown_rows) < len(table.rows):
        lines += ["", cells.omitted_rows_text(len(table.rows) - len(shown_rows), tr)]
    return "\n".join(lines)


def _column(table: ReportTable, i: int, shown_rows: Sequence[int], report: Report, tr: Translate) -> list[str]:
    """The column's cells as texts. Equal cells are formatted once, since thousands of runs share most settings."""
    column = table.columns[i]
    values = [table.rows[number][i] for number in shown_rows]
    # 1, 1.0 and True are equal keys but have different texts.
    keys: Sequence[Hashable] = values if len({type(cell) for cell in values}) == 1 else [(type(c), c) for c in values]
    texts: dict[Hashable, str] = {}
    for key, cell in dict(zip(keys, values, strict=True)).items():
        text = cells.format_cell(cell, column, tr)
        if column.name in cells.GLYPH_COLUMNS and text in cells.GLYPHS:
            text = tr(text)
        texts[key] = escape(report.names.get(text, text) if column.name == "run_id" else text)
    return [texts[key] for key in keys]


def _code(command: str) -> str:
    """A command as an indented code block, which backticks cannot end."""
    return "\n".join(f"    {line}" for line in command.splitlines())
