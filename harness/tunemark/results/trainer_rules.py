"""Rules that judge runs of other programs' training loops, each a pure function of what the worker recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding
from tunemark.results.measurement import Measurement
from tunemark_worker.precision import PRECISIONS

# Windows without an update beyond which a loop skips steps: rounding leaves single ones without one.
MAX_STILL = 0.1
# By what a difference in these excuses: rows that are not the token file's, and another loss of the first step.
_EXCUSES_ROWS = ("batching", "rows")
_EXCUSES_LOSS = (*_EXCUSES_ROWS, "loss", "weights", "precision", "attention")


def has_other_padding(measurement: Measurement) -> bool:
    """Whether another program's loop pads otherwise than the settings say, so that a step has other slots."""
    return "padding" in find_differences(measurement)


def has_own_rows(measurement: Measurement) -> bool:
    """Whether a script trains on rows of its own, which no token file can count again."""
    return "rows" in find_differences(measurement)


def find_differences(measurement: Measurement) -> Mapping[str, Any]:
    """By setting, what another program's loop does otherwise than the settings say; empty for tunemark's own."""
    for rank in measurement.ranks[:1]:
        for row in rank.untimed_records:
            if row["kind"] == "trainer":
                return row.get("differs") or {}
    return {}


def judge_trainer(measurement: Measurement) -> list[Finding]:
    """The findings on an attempt of another program's loop; none for tunemark's own."""
    rank = measurement.ranks[0] if measurement.ranks else None
    if not measurement.assignment.trainer_runtime or rank is None:
        return []
    records = {row["kind"]: row for row in rank.untimed_records}
    differs: Mapping[str, Any] = records.get("trainer", {}).get("differs") or {}
    end = records.get("trainer_end", {})
    reference = records.get("reference", {})
    found = [
        check_differs(differs),
        check_rows(int(end.get("foreign", 0)), int(end.get("passed", 0)), end.get("first_foreign"), differs),
        check_updates(int(end.get("still", 0)), int(end.get("windows", 0)), measurement.assignment.optimizer),
    ]
    if reference.get("trained") and measurement.losses:
        wanted = reference["loss_sum"] / reference["trained"]
        found.append(check_first_loss(measurement.losses, wanted, measurement.assignment.precision, differs))
    return [finding for finding in found if finding]


def check_differs(differs: Mapping[str, Any]) -> Finding | None:
    """differs: by name of a setting, what the program does otherwise than the settings say."""
    if not differs:
        return None
    words = "; ".join(f"{name}: {how}" for name, how in sorted(differs.items()))
    return Finding(
        rule="trainer-differs", severity="note", message=f"the trainer does otherwise than the settings: {words}"
    )


def check_rows(foreign: int, passed: int, first: int | None, differs: Mapping[str, Any]) -> Finding | None:
    """foreign: micro-batches, of those that passed the model, whose ids were not the token file's in their order.
    first: the first step that has one."""
    if not foreign:
        return None
    message = f"{foreign} of {passed} micro-batches that passed the model are not those of the token file in their "
    message += f"order, step {first} has the first: it trains on other rows"
    is_said = any(name in differs for name in _EXCUSES_ROWS)
    return Finding(rule="rows-differ", severity="note" if is_said else "invalid", message=message)


def check_updates(still: int, windows: int, optimizer: str) -> Finding | None:
    """still: windows after which none of the sampled weights had changed. Plain SGD may change them by less than a
    rounding."""
    if not windows or still <= MAX_STILL * windows or optimizer == "sgd":
        return None
    message = (
        f"after {still} of {windows} windows no sampled weight had changed (limit {percent_text(MAX_STILL)}): the "
    )
    message += "trainer ends steps in which it updates nothing"
    return Finding(rule="steps-skipped", severity="invalid", message=message)


def check_first_loss(
    losses: Sequence[float], wanted: float, precision: str, differs: Mapping[str, Any]
) -> Finding | None:
    """wanted: the first step's loss as the worker computed it, before the program did anything."""
    tolerance = PRECISIONS[precision].tolerance
    apart = abs(losses[0] - wanted) / max(abs(wanted), 1e-9)
    if apart <= tolerance:
        return None
    message = f"the first step's loss is {losses[0]:.7g}, the run's weights give {wanted:.7g} on the same rows, "
    message += f"{apart:.2g} apart (limit {tolerance:g}): it trains other weights, on other tokens, or another loss"
    is_said = any(name in differs for name in _EXCUSES_LOSS)
    return Finding(rule="trains-otherwise", severity="note" if is_said else "invalid", message=message)
