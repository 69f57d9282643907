"""The outcome of one check, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """name: of the check. subject: what was checked, such as "model x". reason: evidence for the outcome, or why the
    check was skipped."""

    name: str
    subject: str
    outcome: Outcome
    reason: str

    def require(self) -> None:
        """Raise AssertionError with the reason if the check failed."""
        if self.outcome == "failed":
            raise AssertionError(f"{self.name} of {self.subject}: {self.reason}")


def pass_check(name: str, subject: str, reason: str) -> Check:
    return Check(name=name, subject=subject, outcome="passed", reason=reason)


def fail_check(name: str, subject: str, reason: str) -> Check:
    return Check(name=name, subject=subject, outcome="failed", reason=reason)


def skip_check(name: str, subject: str, reason: str) -> Check:
    return Check(name=name, subject=subject, outcome="skipped", reason=reason)


def judge_check(name: str, subject: str, problems: list[str], good: str) -> Check:
    """A failed check naming the problems, or a passed one with the reason `good` if there are none."""
    return fail_check(name, subject, "; ".join(problems)) if problems else pass_check(name, subject, good)
