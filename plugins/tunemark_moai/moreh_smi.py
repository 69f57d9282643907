"""Parse the output of `moreh-smi`: its status table from 0.8.0 to 25.1.202, `--token`, `-p`, `-v`, and the results of
`--reset` and `device --add | --rm | --switch`.

Nothing is run here. A tool of the same name exists for other hardware, so the table decides which one it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from tunemark.plugin.descriptors import DeviceState, ProcessState
from tunemark_moai import cells
from tunemark_moai.tables import Kind, Row, Table, tables_of
from tunemark_moai.terminal import Line, UnreadableOutput, lines_of, unmarked
from tunemark_moai.versions import versions_of

# The flavor's column is named `Model` up to 25.1, and `Flavor` in some outputs of 24.2 and 24.5. `device` prints three
# columns; `--token` prints Token and no memory.
DEVICES = Kind(
    name="devices",
    first="device",
    known=frozenset(
        {"device", "name", "token", "model", "flavor", "memory usage", "total memory", "utilization"},
    ),
    needed=(frozenset({"name", "model"}), frozenset({"name", "flavor"})),
)
PROCESSES = Kind(
    name="processes",
    first="device",
    known=frozenset({"device", "job id", "pid", "process", "memory usage"}),
    needed=(frozenset({"pid", "process"}),),
    verbatim="process",
)
PARTS = Kind(
    name="parts",
    first="dev",
    known=frozenset({"dev", "location", "dev temp", "mem temp", "dev util", "mem util", "mem usage"}),
    needed=(frozenset({"location"}),),
)
KINDS = (DEVICES, PROCESSES, PARTS)

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# No word boundary before it: where line breaks were lost, it follows the command's name directly.
_TIMESTAMP = re.compile(rf"([0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{1,2}}), ([0-9]{{4}})")
_RESULT_PATTERN = re.compile(
    r"(?P<what>Create device|Remove device|Switch current device|Device release) (?P<how>success|fail(?:ed|ure)?)\b"
    r"\.?\s*(?:\((?P<why>[^)]*)\)|:?\s*(?P<rest>.*))",
    re.I,
)
_VERSION_PATTERN = re.compile(r"Moreh AI Platform ([0-9][0-9A-Za-z.+-]*)")

Act = Literal["add", "remove", "switch", "reset"]

_ACTIONS: dict[str, Act] = {
    "create device": "add",
    "remove device": "remove",
    "switch current device": "switch",
    "device release": "reset",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One status table with its processes.

    at: the tool's clock, without a time zone. version_current: of the client's software. version_latest: the newest
    on offer, which can be older. version_server: of the server's software, up to 22.10. processes: None where the
    output has no such block; an idle machine of 23.5 and later has none either.
    """

    at: datetime | None
    version_current: str | None
    version_latest: str | None
    version_server: str | None
    devices: tuple[DeviceState, ...]
    processes: tuple[ProcessState, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """The token that a device belongs to. It authorises whoever holds it, so `repr` leaves it out."""

    device: int
    token: str | None = field(repr=False)
    flavor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One physical device behind the accelerator, from `-p`. host and index: its location, like `back01:0`."""

    id: int
    host: str | None
    index: int | None
    temperature_c: float | None
    memory_temperature_c: float | None
    utilization: float | None
    memory_utilization: float | None
    memory_used_fraction: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The physical devices of the running job. at: the tool's clock."""

    at: datetime | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The success or failure that `--reset` or `device ...` reports; `reason`: the text that follows a failure."""

    act: Act
    succeeded: bool
    reason: str | None
    line: Line


def read_status(text: str) -> Status:
    """The last status table of a text, of any version and any known columns."""
    return status_of(tables_of(lines_of(text), KINDS))


def status_of(tables: Sequence[Table]) -> Status:
    """The last table of devices, and the processes that follow it."""
    last = _last(tables, DEVICES, "a table of devices")
    following = [t for t in tables[tables.index(last) + 1 :] if t.kind is PROCESSES]
    versions = versions_of(last.titles)
    devices = tuple(_device(row) for row in last.rows)
    ids = [device.id for device in devices]
    for row, device in zip(last.rows, devices, strict=True):
        if ids.count(device.id) > 1:
            raise UnreadableOutput(
                what=f"device {device.id} is in the table twice", line=row.line, expected="each device once"
            )
    return Status(
        at=instant_of(last.before),
        version_current=versions.get("current") or versions.get("client") or versions.get("moreh-smi"),
        version_latest=versions.get("latest"),
        version_server=versions.get("server"),
        devices=_with_default(last, devices),
        processes=tuple(_process(row) for t in following for row in t.rows) if following else None,
    )


def read_tokens(text: str) -> tuple[Token, ...]:
    """The table of `--token`, or the Token column of a status table up to 22.8."""
    last = _last([t for t in tables_of(lines_of(text), KINDS) if "token" in t.columns], DEVICES, "a table with tokens")
    return tuple(
        Token(device=cells.marked(row, "device")[0], token=cells.name(row, "token"), flavor=_flavor(row))
        for row in last.rows
    )


def read_parts(text: str) -> Parts:
    """The table of `-p`."""
    return parts_of(tables_of(lines_of(text), KINDS))


def parts_of(tables: Sequence[Table]) -> Parts:
    """The last table of physical devices."""
    last = _last(tables, PARTS, "a table of `moreh-smi -p`")
    return Parts(at=instant_of(last.before), parts=tuple(_physical_device(row) for row in last.rows))


def read_answers(text: str) -> tuple[Answer, ...]:
    """Every success or failure that `--reset` and `device ...` report, in order; empty where there is none."""
    return answers_of(lines_of(text))


def answers_of(lines: Sequence[Line]) -> tuple[Answer, ...]:
    answers = []
    for line in lines:
        if found := _RESULT_PATTERN.search(unmarked(line.text)):
            answers.append(
                Answer(
                    act=_ACTIONS[found["what"].casefold()],
                    succeeded=found["how"].casefold() == "success",
                    reason=(found["why"] or found["rest"] or "").strip() or None,
                    line=line,
                )
            )
    return tuple(answers)


def read_version(text: str) -> str:
    """The version that `-v` prints."""
    lines = lines_of(text)
    for line in lines:
        if found := _VERSION_PATTERN.search(unmarked(line.text)):
            return found.group(1).rstrip(".")
    raise UnreadableOutput(
        what="there is no version", line=_first_nonblank(lines), expected="a line like `Moreh AI Platform 22.10.2`"
    )


def instant_of(lines: Sequence[Line]) -> datetime | None:
    """The last date line, like `14:23:17 September 12, 2023`; None where there is none or it is no valid date."""
    found = [match for line in lines for match in _TIMESTAMP.finditer(line.text)]
    if not found:
        return None
    clock, month, day, year = found[-1].groups()
    try:
        return datetime.fromisoformat(f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02}T{clock}")
    except ValueError:
        return None


def _device(row: Row) -> DeviceState:
    number, is_default = cells.marked(row, "device")
    return DeviceState(
        id=number,
        default=is_default,
        name=cells.name(row, "name"),
        flavor=_flavor(row),
        memory_used_mib=cells.mebibytes(row, "memory usage"),
        memory_total_mib=cells.mebibytes(row, "total memory"),
        utilization=cells.fraction(row, "utilization", sign=True),
    )


def _flavor(row: Row) -> str | None:
    return cells.flavor(row, "flavor" if "flavor" in row.cells else "model")


def _with_default(table: Table, devices: tuple[DeviceState, ...]) -> tuple[DeviceState, ...]:
    """Up to 22.8 there is no star, and later a lone device may lack it: without one, every `default` is None."""
    stars = [row for row, device in zip(table.rows, devices, strict=True) if device.default]
    if len(stars) > 1:
        raise UnreadableOutput(
            what="more than one device has the star of the default", line=stars[1].line, expected="one star at most"
        )
    if stars:
        return devices
    return tuple(replace(device, default=None) for device in devices)


def _process(row: Row) -> ProcessState:
    return ProcessState(
        device=cells.marked(row, "device")[0],
        job_id=cells.whole(row, "job id"),
        pid=cells.whole(row, "pid"),
        command=cells.name(row, "process"),
        memory_mib=cells.mebibytes(row, "memory usage"),
    )


def _physical_device(row: Row) -> Part:
    host, index = cells.place(row, "location")
    return Part(
        id=cells.marked(row, "dev")[0],
        host=host,
        index=index,
        temperature_c=cells.celsius(row, "dev temp"),
        memory_temperature_c=cells.celsius(row, "mem temp"),
        utilization=cells.fraction(row, "dev util", sign=True),
        memory_utilization=cells.fraction(row, "mem util", sign=True),
        memory_used_fraction=cells.fraction(row, "mem usage", sign=True),
    )


def _last(tables: Sequence[Table], kind: Kind, expected: str) -> Table:
    found = [table for table in tables if table.kind is kind]
    if not found:
        raise UnreadableOutput(what="there is no such table", expected=expected)
    return found[-1]


def _first_nonblank(lines: Sequence[Line]) -> Line | None:
    return next((line for line in lines if line.text.strip()), None)
