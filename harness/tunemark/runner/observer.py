"""What a caller hears of a sweep's progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunemark.experiment import Plan
from tunemark.launch import AttemptEnd
from tunemark.plugin.descriptors import OWN_TRAINER

if TYPE_CHECKING:
    from tunemark.runner.preparation import PreparedRun


@dataclass(kw_only=True, slots=True)
class RunObserver:
    """Callbacks on the progress of a sweep, all optional; none may raise.

    message: a line of text. attempt: before each attempt (run, number of the attempt, of how many). record: each record
    of rank 0 as it is read, and `start` and `end` of the other ranks. ended: after each attempt. Attempts of several
    runs overlap where the launcher takes several jobs.
    """

    message: Callable[[str], None] = field(default=lambda words: None)
    attempt: Callable[[PreparedRun, int, int], None] = field(default=lambda ready, number, of: None)
    record: Callable[[PreparedRun, Mapping[str, Any]], None] = field(default=lambda ready, record: None)
    ended: Callable[[PreparedRun, AttemptEnd], None] = field(default=lambda ready, ended: None)


def run_title(plan: Plan) -> str:
    """A short description of a run."""
    spec = plan.spec
    words = f"{spec.model} {spec.device}:{spec.size} {spec.strategy} {spec.precision} {spec.batching}"
    words += f" {spec.micro_batch}x{spec.sequence}"
    if plan.trainer.name != OWN_TRAINER.name:
        words += f" by {plan.trainer.name}"
    return words + (" breakdown" if spec.breakdown else "")
