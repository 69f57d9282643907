"""What a recorded session holds beside its letters is taken away, and lines keep their numbers."""

import pytest

from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, split_lines, strip_markup


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\r\nb", [(1, "a"), (2, "b")]),
        ("a\r\r\nb\n", [(1, "a"), (2, "b"), (3, "")]),
        ("0%\r100%\nb", [(1, "0%"), (1, "100%"), (2, "b")]),
        ("\x1b[1;32muser\x1b[0m$ \x1b]0;a title\x07moreh-smi\x1b[K", [(1, "user$ moreh-smi")]),
        ("\x1b]0;a title\x1b\\x\x1b(B", [(1, "x")]),
        ("|\x1b[4CName\x1b[2C|", [(1, "|    Name  |")]),
        ("one\x1b[2;1Htwo", [(1, "one"), (1, "two")]),
        ("morehh\x08-smk\x08i", [(1, "moreh-smi")]),
        ("\ufeffa\u00a0b\u200b\x00  ", [(1, "a b")]),
        ("", [(1, "")]),
    ],
)
def test_lines_are_what_a_terminal_shows(raw, shown):
    assert [(line.number, line.text) for line in split_lines(raw)] == shown


def test_a_sentence_loses_the_marks_of_a_document():
    assert strip_markup(r"**~~~~**Current **X**: OUT\_OF\_MEMORY") == "Current X: OUT_OF_MEMORY"


def test_a_complaint_shows_the_line_but_no_token_and_no_endless_line():
    line = TerminalLine(number=7, text="|  c29tZSBleGFtcGxlIHRleHQ=  |" + "x" * 500)
    text = str(UnreadableOutput(what="no", expected="yes", line=line))
    assert 'line 7: "|  (a token)  |xxx' in text
    assert "expected yes" in text
    assert "c29t" not in text
    assert len(text) < 400
