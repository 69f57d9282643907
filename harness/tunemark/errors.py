"""Errors for users: what happened, why, and what to do next.

A `TunemarkError` is one that the user can fix; the command line prints it without a traceback and exits with code 2.
Any other exception that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunemarkError(Exception):
    """An error that the user can fix.

    what: what happened. why: where the value was given, and the cause. next: the command or change that helps.
    """

    def __init__(self, *, what: str, why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.next = what, why, next

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why:  {self.why}")
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)

    def one_line(self) -> str:
        """What, why and next in one line."""
        return "; ".join(" ".join(part.split()) for part in (self.what, self.why, self.next) if part)


class UnknownName(TunemarkError):  # noqa: N818 - the sentence reads better: it is what happened
    """A name that no installed plugin provides."""


class BadExperiment(TunemarkError):  # noqa: N818 - likewise
    """A key, a value or a combination that cannot be run."""


class BadData(TunemarkError):  # noqa: N818 - likewise
    """A dataset that is missing, empty, not parseable, or lacks what the experiment needs."""


class NotReachable(BadData):
    """Data or a tokenizer that is not on this machine and cannot be downloaded now; it may be fine elsewhere."""


class BadStore(TunemarkError):  # noqa: N818 - likewise
    """A runs folder, or one entry in it, that cannot be read or written."""


class PluginError(TunemarkError):
    """A plugin that does not import, misspells a hook, or claims a name that another plugin claims."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt name, and all known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(wrong.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if matches:
        right = next(n for n in names if n.lower() == matches[0])
        return f"did you mean {right!r}? There is: {', '.join(names)}"
    return f"there is: {', '.join(names) or 'nothing'}"
