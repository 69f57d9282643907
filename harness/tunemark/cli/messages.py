"""Messages of commands, on standard error: remarks, progress, and what could not be done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.visible_text import make_visible

if TYPE_CHECKING:
    from tunemark.experiment import Plan
    from tunemark.plugin import Catalog


def print_message(words: str) -> None:
    # Where nobody can hear it, the command does its work all the same.
    with contextlib.suppress(OSError):
        print(make_visible(words), file=sys.stderr, flush=True)


def print_json(text: str) -> None:
    """Print JSON on standard output; what a terminal would take for a command is escaped in it, too."""
    print(make_visible(text))


def print_remarks(catalog: Catalog, plans: Sequence[Plan], notes: Sequence[str] = ()) -> None:
    """What plugins and plans have to say before anything is run, each once."""
    for words in dict.fromkeys([*catalog.remarks(), *notes, *(note for plan in plans for note in plan.notes)]):
        print_message(words)
