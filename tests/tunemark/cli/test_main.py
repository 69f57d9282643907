"""How a command ends where something other than a measurement goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_RAISE = """
import sys
from tunemark.cli import listing, main
listing.execute = {what}
sys.exit(main.main(["list", "models"]))
"""


@pytest.mark.parametrize("what", ["lambda args: 1 // 0", "lambda args: sys.exit(0)"])
def test_an_error_of_our_own_is_no_verdict(what: str) -> None:
    """Neither 0, nor 1, which a gate takes for a regression."""
    words = [sys.executable, "-c", _RAISE.format(what=what)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 70
    assert "an error in tunemark or in a plugin" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_takes_nothing_is_said_without_a_traceback() -> None:
    words = [sys.executable, "-m", "tunemark", "list", "launchers"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "cannot write to standard output" in done.stderr
    closed = subprocess.run(["sh", "-c", f"{sys.executable} -m tunemark list launchers >&-"], capture_output=True)
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_a_terminal_of_ascii_shows_what_it_can() -> None:
    words = [sys.executable, "-c", "from tunemark.cli.main import _prepare_streams; _prepare_streams(); print('±')"]
    done = subprocess.run(words, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.stdout == b"\\xb1\n"
