"""A Markdown table keeps its shape whatever its cells hold, and unknown numbers are dashes."""

from __future__ import annotations

from pathlib import Path

import tunemark.markdown
from tunemark.markdown import escape, markdown_table, unescape
from tunemark.number_format import format_gib, format_number, format_percent, format_significant, percent_text


def test_a_table_has_its_alignment_the_last_of_which_holds_for_the_rest() -> None:
    table = markdown_table(["name", "a", "b"], [["x", "1", "2"]], "<>")
    assert table == "| name | a | b |\n|---|---:|---:|\n| x | 1 | 2 |"


def test_no_cell_breaks_a_table() -> None:
    cells = ["a|b", escape("a|b"), "two\nlines"]
    assert markdown_table(["1", "2", "3"], [cells], "<").splitlines()[2:] == [r"| a\|b | a\|b | two lines |"]


def test_only_what_would_be_markup_is_escaped() -> None:
    assert escape("micro_batch=2 _x_ __init__ a*b") == r"micro_batch=2 \_x\_ \_\_init\_\_ a\*b"
    assert escape("`tunemark why` ranks <it> `rm`") == r"`tunemark why` ranks \<it\> \`rm\`"
    assert escape("`tunemark <b>`") == r"\`tunemark \<b\>\`"
    assert unescape(escape("a_b _c_ `d` [e]")) == "a_b _c_ `d` [e]"


def test_numbers_in_the_scale_of_a_unit() -> None:
    assert [format_percent(0.1234), format_percent(0.1234, ".0f"), percent_text(0.025)] == ["12.3", "12", "2.5 %"]
    assert [format_gib(3 << 29), format_number(1234.5, ",.0f"), format_significant(-0.5, 2)] == [
        "1.500",
        "1,234",
        "-0.50",
    ]
    unknown = [format_gib(None), format_percent(None), format_number(None, ".1f"), format_significant(None)]
    assert unknown == ["-"] * 4


def test_no_other_module_makes_a_table_by_hand() -> None:
    home = Path(tunemark.markdown.__file__)
    sources = [*home.parents[1].rglob("*.py"), *(home.parents[2] / "plugins").rglob("*.py")]
    assert len(sources) > 200
    assert [path for path in sources if path != home and "---|" in path.read_text(encoding="utf-8")] == []
