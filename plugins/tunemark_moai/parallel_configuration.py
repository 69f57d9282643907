"""The parallel configuration that the platform selected, parsed from any documented form of its one line.

24.2 writes `num_stages : 2, num_micro_batches : 16, batch_per_device : 1, No TP, recomputation : false,
distribute_param : true`, 24.5 also `No PP, No TP, recomputation : default(1), distribute_param : true,
distribute_low_prec_param : true`. The file advanced_parallelization_selected_config.dump holds the same line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput

_KEYS = (
    "num_stages",
    "num_micro_batches",
    "batch_per_device",
    "recomputation",
    "distribute_param",
    "distribute_low_prec_param",
)
_ITEM_PATTERN = re.compile(r"(\w+)\s*:\s*(\S+)")
_NUMBER_PATTERN = re.compile(r"[0-9]{1,9}")
_RECOMPUTATION_PATTERN = re.compile(r"(false|true)|([0-9]{1,3})|([A-Za-z_]+)\(([0-9]{1,3})\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfiguration:
    """The selected configuration. One stage means no pipeline; num_micro_batches and batch_per_device are then None.

    tensor_parallel: always 1, since no line with more is documented. recomputation_level: 0 none, 1 default, 2 full;
    None where the line says only true or false. distribute_low_prec_param: None in versions without it. spelled: the
    line itself, with its blanks as in the documents.
    """

    num_stages: int
    num_micro_batches: int | None
    batch_per_device: int | None
    tensor_parallel: int
    recomputation: bool
    recomputation_level: int | None
    distribute_param: bool
    distribute_low_prec_param: bool | None
    spelled: str


def parse_configuration(line: TerminalLine) -> ParallelConfiguration:
    """The configuration in a line. Raises `UnreadableOutput` for an unknown item or a missing one."""
    values: dict[str, str] = {}
    absent = set()
    for item in (part.strip() for part in line.text.split(",")):
        found = _ITEM_PATTERN.fullmatch(item)
        if item in ("No PP", "No TP") and item not in absent:
            absent.add(item)
        elif found and found.group(1) in _KEYS and found.group(1) not in values:
            values[found.group(1)] = found.group(2)
        else:
            raise _unreadable(line, f"the part {item!r} of the parallel configuration is not known")
    missing = [key for key in ("recomputation", "distribute_param") if key not in values]
    missing += [] if "No TP" in absent else ["No TP"]
    missing += [] if ("No PP" in absent) != ("num_stages" in values) else ["either num_stages or No PP"]
    if missing:
        raise _unreadable(line, f"the parallel configuration does not say {', '.join(missing)}")
    recomputation, level = _recomputation(line, values["recomputation"])
    return ParallelConfiguration(
        num_stages=_number(line, values, "num_stages") or 1,
        num_micro_batches=_number(line, values, "num_micro_batches"),
        batch_per_device=_number(line, values, "batch_per_device"),
        tensor_parallel=1,
        recomputation=recomputation,
        recomputation_level=level,
        distribute_param=_is_true(line, values["distribute_param"]),
        distribute_low_prec_param=(
            _is_true(line, values["distribute_low_prec_param"]) if "distribute_low_prec_param" in values else None
        ),
        spelled=re.sub(r"\s*([:,])\s*", lambda m: " : " if m[1] == ":" else ", ", line.text.strip()),
    )


def _number(line: TerminalLine, values: dict[str, str], key: str) -> int | None:
    if key not in values:
        return None
    if not _NUMBER_PATTERN.fullmatch(values[key]) or int(values[key]) == 0:
        raise _unreadable(line, f"{key} : {values[key]} is not a number of at least 1")
    return int(values[key])


def _recomputation(line: TerminalLine, value: str) -> tuple[bool, int | None]:
    found = _RECOMPUTATION_PATTERN.fullmatch(value)
    if not found:
        raise _unreadable(line, f"recomputation : {value} is not understood")
    if found.group(1):
        return found.group(1) == "true", None
    level = int(found.group(2) or found.group(4))
    return level > 0, level


def _is_true(line: TerminalLine, value: str) -> bool:
    if value not in ("true", "false"):
        raise _unreadable(line, f"{value!r} is neither true nor false")
    return value == "true"


def _unreadable(line: TerminalLine, what: str) -> UnreadableOutput:
    return UnreadableOutput(
        what=what,
        line=line,
        expected="(num_stages : N, num_micro_batches : N, batch_per_device : N | No PP), No TP, "
        "recomputation : false | true | N | word(N), distribute_param : true | false"
        "[, distribute_low_prec_param : true | false]",
    )
