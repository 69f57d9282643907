"""Parse the output of `ap-smi`, which replaces `moreh-smi` from 25.3.208 on.

It shows memory only as a percentage, no processes, and no default accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import DeviceState, ToolStatus
from tunemark_moai import table_cells
from tunemark_moai.tables import BorderedTable, TableKind, TableRow, find_last
from tunemark_moai.terminal_text import UnreadableOutput
from tunemark_moai.versions import parse_versions

ACCELERATOR_TABLE = TableKind(
    name="accelerators",
    first="#",
    known=frozenset({"#", "name", "flavor", "mem usage(%)", "gpu util(%)"}),
    needed=(frozenset({"flavor"}),),
)


def parse_status(tables: Sequence[BorderedTable]) -> ToolStatus:
    """The last table of accelerators. The version is the MoAI framework's, not the platform's."""
    last = find_last(tables, ACCELERATOR_TABLE, "the table of ap-smi")
    versions = parse_versions(last.titles)
    devices: dict[int, DeviceState] = {}
    for row in last.rows:
        device = _device(row)
        if device.id in devices:
            raise UnreadableOutput(
                what=f"accelerator {device.id} is in the table twice", line=row.line, expected="each accelerator once"
            )
        devices[device.id] = device
    return ToolStatus(
        tool="ap-smi",
        version_current=versions.get("moai framework") or versions.get("current"),
        version_latest=versions.get("latest"),
        devices=tuple(devices.values()),
    )


def _device(row: TableRow) -> DeviceState:
    number, is_default = table_cells.parse_starred_integer(row, "#")
    return DeviceState(
        id=number,
        default=is_default or None,
        name=table_cells.parse_text(row, "name"),
        flavor=table_cells.parse_flavor(row, "flavor"),
        memory_used_fraction=table_cells.parse_fraction(row, "mem usage(%)", sign=False),
        utilization=table_cells.parse_fraction(row, "gpu util(%)", sign=False),
    )
