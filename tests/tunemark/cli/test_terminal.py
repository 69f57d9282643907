"""Results on a terminal: tables fit its width, and nothing that was measured disappears without being named."""

import io
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tunemark.cli.terminal import print_on_terminal
from tunemark.markdown import escape, markdown_table

_RUNS = markdown_table(
    ["run", "tokens/s (content)", "tokens/s (slots)", "n", "padding (%)", "MFU (%)", "status", "verdict"],
    [
        ["none", "755 ± 30", "1,000 ± 30", "3", "62.0", "11.2", "ok", "valid"],
        [escape("sequence_parallel"), "2,264 ± 31", "1,001 ± 30", "3", "62.5", "11.3", "ok", "suspect"],
    ],
    "<>>>>>><<",
)


def _draw(markdown: str, width: int, *, colour: bool = False) -> str:
    stream = io.StringIO()
    system = {"force_terminal": True, "color_system": "standard"} if colour else {"force_terminal": False}
    print_on_terminal(markdown, Console(file=stream, width=width, highlight=False, markup=False, **system))  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    drawn = _draw(f"model {escape('mistral_tiny')}\n\n{_RUNS}\n\nINVALID a run: " + "its reason is long. " * 20, width)
    assert max(cell_len(line) for line in drawn.split("\n")) <= width
    assert "\\" not in drawn
    assert "|" not in drawn
    assert "sequence_parallel" in drawn
    assert "2,264 ± 31" in drawn
    assert "suspect" in drawn


def test_numbers_are_aligned_to_the_right() -> None:
    first, second = re.findall(r"^(?:none|sequence_parallel).*± 3\d  ", _draw(_RUNS, 200), flags=re.MULTILINE)
    assert len(first) == len(second)


def test_columns_without_room_are_named() -> None:
    drawn = " ".join(_draw(_RUNS, 40).split())
    assert "no room for: tokens/s (slots), n, padding (%), MFU (%), status" in drawn
    assert "no room" not in _draw(_RUNS, 80)


def test_one_row_without_room_is_turned() -> None:
    wide = [f"column {n}" for n in range(12)]
    drawn = _draw(markdown_table(wide, [[f"value {n}" for n in range(12)]], "<"), 40)
    assert [line.split() for line in drawn.split("\n") if "column" in line] == [
        ["column", str(n), "value", str(n)] for n in range(12)
    ]


def test_verdicts_have_colours_beside_their_words() -> None:
    drawn = _draw(_RUNS + "\nINVALID x", 200, colour=True)
    assert "\x1b[32mvalid" in drawn
    assert "\x1b[33msuspect" in drawn
    assert "\x1b[1;31mINVALID" in drawn


@given(
    st.lists(st.lists(st.text("ab_|*漢 1.,±", max_size=30), min_size=4, max_size=4), min_size=2, max_size=4),
    st.integers(40, 120),
)
def test_every_value_is_drawn_or_its_column_is_named(rows: list[list[str]], width: int) -> None:
    heading = ["first", "second", "third", "verdict"]
    drawn = _draw(markdown_table(heading, [[escape(cell) for cell in row] for row in rows], "<><<"), width)
    assert max(cell_len(line) for line in drawn.split("\n")) <= width
    named = re.search(r"no room for: (.*) \(a", " ".join(drawn.split()))
    hidden = named[1].split(", ") if named else []
    table = drawn.partition("no room for: ")[0]
    shown = [at for at, name in enumerate(heading) if name not in hidden]
    cells = [*(heading[at] for at in shown), *(row[at] for row in rows for at in shown)]
    assert Counter("".join("".join(cells).split())) == Counter("".join(table.replace("─", "").split()))
