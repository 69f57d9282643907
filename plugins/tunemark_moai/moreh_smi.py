"""Parse the output of `moreh-smi`: its status table from 0.8.0 to 25.1.202, and that of `-p`.

Nothing is run here. A tool of the same name exists for other hardware, so the table decides which one it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tunemark.plugin.descriptors import DeviceState, ProcessState
from tunemark_moai import table_cells
from tunemark_moai.tables import BorderedTable, TableKind, TableRow, find_last, find_tables
from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, split_lines, strip_markup
from tunemark_moai.versions import parse_versions

# The flavor's column is named `Model` up to 25.1, and `Flavor` in some outputs of 24.2 and 24.5. `device` prints three
# columns; `--token` prints Token and no memory.
DEVICE_TABLE = TableKind(
    name="devices",
    first="device",
    known=frozenset(
        {"device", "name", "token", "model", "flavor", "memory usage", "total memory", "utilization"},
    ),
    needed=(frozenset({"name", "model"}), frozenset({"name", "flavor"})),
)
PROCESS_TABLE = TableKind(
    name="processes",
    first="device",
    known=frozenset({"device", "job id", "pid", "process", "memory usage"}),
    needed=(frozenset({"pid", "process"}),),
    verbatim="process",
)
PHYSICAL_DEVICE_TABLE = TableKind(
    name="parts",
    first="dev",
    known=frozenset({"dev", "location", "dev temp", "mem temp", "dev util", "mem util", "mem usage"}),
    needed=(frozenset({"location"}),),
)
TABLE_KINDS = (DEVICE_TABLE, PROCESS_TABLE, PHYSICAL_DEVICE_TABLE)

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# No word boundary before it: where line breaks were lost, it follows the command's name directly.
_TIMESTAMP = re.compile(rf"([0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{1,2}}), ([0-9]{{4}})")
_RESULT_PATTERN = re.compile(
    r"(?:Create device|Remove device|Switch current device|Device release) (?:success|fail(?:ed|ure)?)\b", re.I
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmiStatus:
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
class PhysicalDevice:
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
class PhysicalDevices:
    """The physical devices of the running job. at: the tool's clock."""

    at: datetime | None
    parts: tuple[PhysicalDevice, ...]


def parse_status(tables: Sequence[BorderedTable]) -> SmiStatus:
    """The last table of devices, and the processes that follow it."""
    last = find_last(tables, DEVICE_TABLE, "a table of devices")
    following = [t for t in tables[tables.index(last) + 1 :] if t.kind is PROCESS_TABLE]
    versions = parse_versions(last.titles)
    devices = tuple(_device(row) for row in last.rows)
    ids = [device.id for device in devices]
    for row, device in zip(last.rows, devices, strict=True):
        if ids.count(device.id) > 1:
            raise UnreadableOutput(
                what=f"device {device.id} is in the table twice", line=row.line, expected="each device once"
            )
    return SmiStatus(
        at=parse_timestamp(last.before),
        version_current=versions.get("current") or versions.get("client") or versions.get("moreh-smi"),
        version_latest=versions.get("latest"),
        version_server=versions.get("server"),
        devices=_with_default(last, devices),
        processes=tuple(_process(row) for t in following for row in t.rows) if following else None,
    )


def read_physical_devices(text: str) -> PhysicalDevices:
    """The table of `-p`."""
    return parse_physical_devices(find_tables(split_lines(text), TABLE_KINDS))


def parse_physical_devices(tables: Sequence[BorderedTable]) -> PhysicalDevices:
    """The last table of physical devices."""
    last = find_last(tables, PHYSICAL_DEVICE_TABLE, "a table of `moreh-smi -p`")
    return PhysicalDevices(at=parse_timestamp(last.before), parts=tuple(_physical_device(row) for row in last.rows))


def is_action_result(line: TerminalLine) -> bool:
    """Whether a line is a success or failure that `--reset` or `device ...` reports."""
    return _RESULT_PATTERN.search(strip_markup(line.text)) is not None


def parse_timestamp(lines: Sequence[TerminalLine]) -> datetime | None:
    """The last date line, like `14:23:17 September 12, 2023`; None where there is none or it is no valid date."""
    found = [match for line in lines for match in _TIMESTAMP.finditer(line.text)]
    if not found:
        return None
    clock, month, day, year = found[-1].groups()
    try:
        return datetime.fromisoformat(f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02}T{clock}")
    except ValueError:
        return None


def _device(row: TableRow) -> DeviceState:
    number, is_default = table_cells.parse_starred_integer(row, "device")
    return DeviceState(
        id=number,
        default=is_default,
        name=table_cells.parse_text(row, "name"),
        flavor=_flavor(row),
        memory_used_mib=table_cells.parse_mebibytes(row, "memory usage"),
        memory_total_mib=table_cells.parse_mebibytes(row, "total memory"),
        utilization=table_cells.parse_fraction(row, "utilization", sign=True),
    )


def _flavor(row: TableRow) -> str | None:
    return table_cells.parse_flavor(row, "flavor" if "flavor" in row.cells else "model")


def _with_default(table: BorderedTable, devices: tuple[DeviceState, ...]) -> tuple[DeviceState, ...]:
    """Up to 22.8 there is no star, and later a lone device may lack it: without one, every `default` is None."""
    stars = [row for row, device in zip(table.rows, devices, strict=True) if device.default]
    if len(stars) > 1:
        raise UnreadableOutput(
            what="more than one device has the star of the default", line=stars[1].line, expected="one star at most"
        )
    if stars:
        return devices
    return tuple(replace(device, default=None) for device in devices)


def _process(row: TableRow) -> ProcessState:
    return ProcessState(
        device=table_cells.parse_starred_integer(row, "device")[0],
        job_id=table_cells.parse_integer(row, "job id"),
        pid=table_cells.parse_integer(row, "pid"),
        command=table_cells.parse_text(row, "process"),
        memory_mib=table_cells.parse_mebibytes(row, "memory usage"),
    )


def _physical_device(row: TableRow) -> PhysicalDevice:
    host, index = table_cells.parse_location(row, "location")
    return PhysicalDevice(
        id=table_cells.parse_starred_integer(row, "dev")[0],
        host=host,
        index=index,
        temperature_c=table_cells.parse_celsius(row, "dev temp"),
        memory_temperature_c=table_cells.parse_celsius(row, "mem temp"),
        utilization=table_cells.parse_fraction(row, "dev util", sign=True),
        memory_utilization=table_cells.parse_fraction(row, "mem util", sign=True),
        memory_used_fraction=table_cells.parse_fraction(row, "mem usage", sign=True),
    )
