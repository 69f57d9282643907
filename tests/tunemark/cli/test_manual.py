"""The manual page has every command, flag and example, and roff finds no fault in it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tunemark.cli.main import list_commands, main, make_parser


def test_the_manual_has_every_command_flag_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manual"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(".TH TUNEMARK 1 ")
    plain = page.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")
    for name in list_commands():
        examples, parser = make_parser(name)
        assert f'.SH "TUNEMARK {name.upper()}"' in plain
        for action in parser._actions:
            assert all(f"\\fB{flag}\\fR" in plain for flag in action.option_strings if action.help != "==SUPPRESS==")
        assert all(command in plain for command, _ in examples)
    # A line that begins with a point is a request, and must be one of ours.
    assert {line.split()[0] for line in page.splitlines() if line.startswith(".")} == {
        ".TH", ".SH", ".SS", ".TP", ".B", ".I", ".PP", ".nf", ".fi",
    }  # fmt: skip


@pytest.mark.full
def test_man_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("there is no groff on this machine")
    assert main(["manual"]) == 0
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww"], input=capsys.readouterr().out, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "TUNEMARK RUN" in re.sub(".\b", "", done.stdout)
