"""Parse the output of `ap-smi`, which replaces `moreh-smi` from 25.3.208 on.

It shows memory only as a percentage, no processes, and no default accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import DeviceState, ToolReading
from tunemark_moai import cells
from tunemark_moai.tables import Kind, Row, Table, tables_of
from tunemark_moai.terminal import UnreadableOutput, lines_of
from tunemark_moai.versions import versions_of

ACCELERATORS = Kind(
    name="accelerators",
    first="#",
    known=frozenset({"#", "name", "flavor", "mem usage(%)", "gpu util(%)"}),
    needed=(frozenset({"flavor"}),),
)


def read_status(text: str) -> ToolReading:
    """The last table of a text."""
    return status_of(tables_of(lines_of(text), (ACCELERATORS,)))


def status_of(tables: Sequence[Table]) -> ToolReading:
    """The last table of accelerators. The version is the MoAI framework's, not the platform's."""
    found = [table for table in tables if table.kind is ACCELERATORS]
    if not found:
        raise UnreadableOutput(what="there is no such table", expected="the table of ap-smi")
    last = found[-1]
    versions = versions_of(last.titles)
    devices: dict[int, DeviceState] = {}
    for row in last.rows:
        device = _device(row)
        if device.id in devices:
            raise UnreadableOutput(
                what=f"accelerator {device.id} is in the table twice", line=row.line, expected="each accelerator once"
            )
        devices[device.id] = device
    return ToolReading(
        tool="ap-smi",
        version_current=versions.get("moai framework") or versions.get("current"),
        version_latest=versions.get("latest"),
        devices=tuple(devices.values()),
    )


def _device(row: Row) -> DeviceState:
    number, is_default = cells.marked(row, "#")
    return DeviceState(
        id=number,
        default=is_default or None,
        name=cells.name(row, "name"),
        flavor=cells.flavor(row, "flavor"),
        memory_used_fraction=cells.fraction(row, "mem usage(%)", sign=False),
        utilization=cells.fraction(row, "gpu util(%)", sign=False),
    )
