"""The exit codes of every command, and which one some results have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunemark.results.result import Result, Verdict


class ExitCode(IntEnum):
    """What a command's end says. INVALID: a figure cannot be right, a run is slower than its baseline, or a check
    failed. USAGE: an error that the user can fix. UNKNOWN: too little is known for a verdict. NOT_OK: a run failed.
    INTERNAL: an error in tunemark or a plugin, which says nothing of any figure (EX_SOFTWARE of sysexits.h).
    BROKEN_PIPE: the reader of standard output is gone."""

    SUCCESS = 0
    INVALID = 1
    USAGE = 2
    UNKNOWN = 3
    NOT_OK = 4
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def exit_code_of_results(results: Sequence[Result]) -> ExitCode:
    """The exit code of the worst run. A run out of memory counts only if no run is ok: in a sweep that finds what fits,
    it is an expected result."""
    some_ok = any(r.status == "ok" for r in results)
    counted = [r for r in results if not (r.status == "oom" and some_ok)]
    if any(r.status != "ok" for r in counted):
        return ExitCode.NOT_OK
    if any(r.verdict == "invalid" for r in results):
        return ExitCode.INVALID
    return exit_code_of_verdicts(r.verdict for r in counted)


def exit_code_of_verdicts(verdicts: Iterable[Verdict]) -> ExitCode:
    """The exit code of the worst verdict."""
    found = set(verdicts)
    if "invalid" in found:
        return ExitCode.INVALID
    return ExitCode.UNKNOWN if "unknown" in found else ExitCode.SUCCESS
