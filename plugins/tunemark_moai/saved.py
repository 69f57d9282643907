"""Which tool printed a text, and the accelerators it shows, in one shape for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunemark.plugin.descriptors import DeviceState, ToolReading
from tunemark_moai import ap_smi, moreh_smi, switch_model, training_log
from tunemark_moai.tables import has_border, tables_of
from tunemark_moai.terminal import Line, UnreadableOutput, lines_of, unmarked

_KINDS = (*moreh_smi.KINDS, ap_smi.ACCELERATORS)

# Complaints that take the place of a table, with what mends them.
_COMPLAINTS = (
    (
        re.compile(r"SDA token is not (?:set|given)|moreh::InvalidToken"),
        "the tool stopped: it has no token",
        "put the token of this machine into /etc/moreh/token, or into MOREH_SDA_TOKEN",
    ),
    (
        re.compile(r"command not found|No such file or directory"),
        "the tool is not installed where it was called",
        "call it in the MoAI environment, and save what it prints there",
    ),
)
_VERSION = re.compile(r"Moreh AI Platform [0-9]")
_HELP = re.compile(r"^\s*Usage: ", re.I)
_A_TABLE = "a table of `moreh-smi` or `ap-smi`"
_SAVE = "save what `moreh-smi` (or `ap-smi`, from 25.3.208 on) prints, and name that file"


def read_devices(text: str) -> ToolReading:
    """The accelerators that a text shows.

    Output stands in the order of time, so the last table is the one that holds, and of processes those below it. Where
    there is only `moreh-smi -p`, its physical devices are given: they have no flavor, and their place for a name.
    """
    lines = lines_of(text)
    tables = tables_of(lines, _KINDS)
    if not tables:
        raise _no_table(lines)
    shown = [table for table in tables if table.kind in (moreh_smi.DEVICES, ap_smi.ACCELERATORS)]
    if shown and shown[-1].kind is ap_smi.ACCELERATORS:
        return ap_smi.status_of(tables)
    if shown:
        status = moreh_smi.status_of(tables)
        return ToolReading(
            tool="moreh-smi",
            version_current=status.version_current,
            version_latest=status.version_latest,
            devices=status.devices,
            processes=status.processes or (),
        )
    if any(table.kind is moreh_smi.PARTS for table in tables):
        return ToolReading(tool="moreh-smi", devices=tuple(_part(part) for part in moreh_smi.parts_of(tables).parts))
    raise UnreadableOutput(
        what="there is a table of processes, but none of accelerators",
        line=tables[-1].header,
        expected=_A_TABLE,
        next="save the whole output, from its first line on",
    )


def _part(part: moreh_smi.Part) -> DeviceState:
    return DeviceState(
        id=part.id,
        name=None if part.host is None else f"{part.host}:{part.index}",
        memory_used_fraction=part.memory_used_fraction,
        utilization=part.utilization,
    )


def _is_menu(lines: Sequence[Line]) -> bool:
    """Whether the tool asks or answers; a numbered list alone may be anybody's."""
    try:
        session = switch_model.session_of(lines)
    except UnreadableOutput:
        return False
    return bool(session.asks or session.switched or session.in_use or (session.menus and session.accelerator))


def _is_of_training(line: Line) -> bool:
    return any(message.what not in ("build", "other") for message in training_log.messages_of(line))


def _no_table(lines: Sequence[Line]) -> UnreadableOutput:
    """Why a text has no table, by what it is instead."""
    filled = [line for line in lines if line.text.strip()]
    is_menu = _is_menu(lines)
    if not filled:
        return UnreadableOutput(what="the text is empty", expected=_A_TABLE, next=_SAVE)
    signs: tuple[tuple[str, Callable[[Line], bool]], ...] = (
        ("this is the output of a training program", _is_of_training),
        (
            "this is a menu of flavors, which says nothing of accelerators",
            lambda line: is_menu and switch_model.is_sign(line),
        ),
        ("this is an answer of moreh-smi without a table", lambda line: bool(moreh_smi.answers_of([line]))),
        ("this is the help of a tool, not its status", lambda line: _HELP.search(line.text) is not None),
        ("this is the version of a tool, not its status", lambda line: _VERSION.search(line.text) is not None),
        ("there is the border of a table, but no header and no rows", has_border),
    )
    for sign, what, mend in _COMPLAINTS:
        for line in filled:
            if sign.search(unmarked(line.text)):
                return UnreadableOutput(what=what, line=line, expected=_A_TABLE, next=mend)
    for what, is_sign in signs:
        for line in filled:
            if is_sign(line):
                return UnreadableOutput(what=what, line=line, expected=_A_TABLE, next=_SAVE)
    return UnreadableOutput(what="there is no table", line=filled[0], expected=_A_TABLE, next=_SAVE)
