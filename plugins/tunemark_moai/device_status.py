"""Parse saved output of any tool of the platform into one `ToolStatus`, or name what the text is instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunemark.plugin.descriptors import DeviceState, ToolStatus
from tunemark_moai import ap_smi, moreh_smi, switch_model, training_log
from tunemark_moai.tables import find_tables, has_border
from tunemark_moai.terminal_text import TerminalLine, UnreadableOutput, split_lines, strip_markup

_KINDS = (*moreh_smi.TABLE_KINDS, ap_smi.ACCELERATOR_TABLE)

# Error messages that appear instead of a table, with the remedy for each.
_ERRORS = (
    (
        re.compile(r"SDA token is not (?:set|given)|moreh::InvalidToken"),
        "the tool stopped: it has no token",
        "put the token of this machine into /etc/moreh/token, or into MOREH_SDA_TOKEN",
    ),
    (
        re.compile(r"command not found|No such file or directory"),
        "the tool is not installed where it was called",
        "call it in the MoAI environment, and save its output there",
    ),
)
_VERSION_LINE = re.compile(r"Moreh AI Platform [0-9]")
_HELP_LINE = re.compile(r"^\s*Usage: ", re.I)
_A_TABLE = "a table of `moreh-smi` or `ap-smi`"
_SAVE = "save what `moreh-smi` (or `ap-smi`, from 25.3.208 on) prints, and name that file"


def read_devices(text: str) -> ToolStatus:
    """The accelerators that a text shows.

    Output is in order of time, so the last table counts, with the processes below it. Where there is only
    `moreh-smi -p`, its physical devices are returned: they have no flavor, and their location is their name.
    """
    lines = split_lines(text)
    tables = find_tables(lines, _KINDS)
    if not tables:
        raise _make_no_table_error(lines)
    status_tables = [table for table in tables if table.kind in (moreh_smi.DEVICE_TABLE, ap_smi.ACCELERATOR_TABLE)]
    if status_tables and status_tables[-1].kind is ap_smi.ACCELERATOR_TABLE:
        return ap_smi.parse_status(tables)
    if status_tables:
        status = moreh_smi.parse_status(tables)
        return ToolStatus(
            tool="moreh-smi",
            version_current=status.version_current,
            version_latest=status.version_latest,
            devices=status.devices,
            processes=status.processes or (),
        )
    if any(table.kind is moreh_smi.PHYSICAL_DEVICE_TABLE for table in tables):
        return ToolStatus(
            tool="moreh-smi", devices=tuple(map(_to_state, moreh_smi.parse_physical_devices(tables).parts))
        )
    raise UnreadableOutput(
        what="there is a table of processes, but none of accelerators",
        line=tables[-1].header,
        expected=_A_TABLE,
        next="save the whole output, from its first line on",
    )


def _to_state(part: moreh_smi.PhysicalDevice) -> DeviceState:
    return DeviceState(
        id=part.id,
        name=None if part.host is None else f"{part.host}:{part.index}",
        memory_used_fraction=part.memory_used_fraction,
        utilization=part.utilization,
    )


def _is_menu(lines: Sequence[TerminalLine]) -> bool:
    """Whether there is a prompt or reply of the tool; a numbered list alone may be of any program."""
    try:
        session = switch_model.parse_session(lines)
    except UnreadableOutput:
        return False
    return bool(session.asks or session.switched or session.in_use or (session.menus and session.accelerator))


def _is_training_output(line: TerminalLine) -> bool:
    return any(message.what not in ("build", "other") for message in training_log.parse_messages(line))


def _make_no_table_error(lines: Sequence[TerminalLine]) -> UnreadableOutput:
    """The error for a text without a table; it names what the text is instead."""
    filled = [line for line in lines if line.text.strip()]
    is_menu = _is_menu(lines)
    if not filled:
        return UnreadableOutput(what="the text is empty", expected=_A_TABLE, next=_SAVE)
    signs: tuple[tuple[str, Callable[[TerminalLine], bool]], ...] = (
        ("this is the output of a training program", _is_training_output),
        (
            "this is a menu of flavors, which shows no accelerators",
            lambda line: is_menu and switch_model.is_tool_output(line),
        ),
        ("this is a reply of moreh-smi without a table", moreh_smi.is_action_result),
        ("this is the help of a tool, not its status", lambda line: _HELP_LINE.search(line.text) is not None),
        ("this is the version of a tool, not its status", lambda line: _VERSION_LINE.search(line.text) is not None),
        ("there is the border of a table, but no header and no rows", has_border),
    )
    for sign, what, remedy in _ERRORS:
        for line in filled:
            if sign.search(strip_markup(line.text)):
                return UnreadableOutput(what=what, line=line, expected=_A_TABLE, next=remedy)
    for what, is_sign in signs:
        for line in filled:
            if is_sign(line):
                return UnreadableOutput(what=what, line=line, expected=_A_TABLE, next=_SAVE)
    return UnreadableOutput(what="there is no table", line=filled[0], expected=_A_TABLE, next=_SAVE)
