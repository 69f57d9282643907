"""What is generated from the grammar is what is read, and nothing but a TunemarkError is ever raised."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from tunemark.errors import TunemarkError
from tunemark.plugin import DeviceState, ProcessState, ToolStatus
from tunemark_moai import moreh_smi, parallel_configuration, switch_model, training_log
from tunemark_moai.device_status import read_devices
from tunemark_moai.terminal_text import TerminalLine

# -- what there is to say

WORD = st.text(st.sampled_from("abcXYZ019.-_가나"), min_size=1, max_size=8).filter(lambda w: w != "-")
NAME = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
FLAVOR = st.sampled_from(["Small.64GB", "1.5xLarge.768GB", "48xLarge.24576GB", "4xLarge.2048", "micro", "small mg1"])
VERSION = st.builds(
    "{}.{}.{}".format, st.integers(0, 25), st.integers(0, 12), st.sampled_from([0, 1, 108, 202, 211, 3005])
)
TOKEN = st.just("c29tZSBleGFtcGxlIHRleHQ=")
MIB = st.none() | st.integers(0, 25159680)
PER_CENT = st.none() | st.integers(0, 100)
PLAIN = st.lists(st.text(st.sampled_from("py ./-=*\"'$0"), min_size=1, max_size=12), min_size=1, max_size=4)
COMMAND = PLAIN.map(lambda words: ("python " + " ".join(words)).strip())
PIPED = st.lists(COMMAND, min_size=1, max_size=3).map(" | ".join) | st.just("a || b")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout of the grammar: its columns, and what may stand around its table."""

    columns: tuple[str, ...]
    title: str
    has_processes: bool = True


CURRENT = "Current Version: {current}  Latest Version: {latest}"
CLIENT = "Moreh-SMI {current}     Client Version: {current}  Server Version: {latest}"
USE = ("Memory Usage", "Total Memory", "Utilization")
LAYOUTS = (
    Layout(columns=("Device", "Name", "Token", "Model", "Memory Usage", "Total Memory"), title=CLIENT),
    Layout(columns=("Device", "Name", "Token", "Model", "Memory Usage", "Total Memory"), title=CURRENT),
    Layout(columns=("Device", "Name", "Model", *USE), title=CLIENT),
    Layout(columns=("Device", "Name", "Model", *USE), title=CURRENT),
    Layout(columns=("Device", "Name", "Flavor", *USE), title=CURRENT),
    Layout(columns=("Device", "Name", "Model"), title="", has_processes=False),
    Layout(columns=("Device", "Name", "Token", "Model"), title="", has_processes=False),
    Layout(columns=("Device", "Name", "Token", "Model"), title="Moreh-SMI {current}", has_processes=False),
)
AP = Layout(columns=("#", "NAME", "FLAVOR", "MEM USAGE(%)", "GPU UTIL(%)"), title="", has_processes=False)


@st.composite
def devices(draw, layout, ids):
    shown = set(layout.columns)
    star = draw(st.none() | st.sampled_from(ids)) if ids and layout is not AP else None
    found = []
    for number in ids:
        per_cent, memory = draw(PER_CENT), draw(PER_CENT)
        found.append(
            DeviceState(
                id=number,
                default=None if star is None else number == star,
                name=draw(st.none() | NAME),
                flavor=draw(st.none() | FLAVOR),
                memory_used_mib=draw(MIB) if "Memory Usage" in shown else None,
                memory_used_fraction=memory / 100 if layout is AP and memory is not None else None,
                memory_total_mib=draw(MIB) if "Total Memory" in shown else None,
                utilization=per_cent / 100 if {"Utilization", "GPU UTIL(%)"} & shown and per_cent is not None else None,
            )
        )
    return tuple(found)


# -- how it is printed


def bar(cells, widths, draw):
    """A row: every cell in its width, wherever in it."""
    padded = []
    for cell, width in zip(cells, widths, strict=True):
        left = draw(st.integers(0, width - len(cell)))
        padded.append(f"  {' ' * left}{cell}{' ' * (width - len(cell) - left)}  ")
    return f"|{'|'.join(padded)}|"


def table(draw, titles, columns, rows, *, grid=False):
    widths = [
        max(len(cell) for cell in column) + draw(st.integers(0, 3)) for column in zip(columns, *rows, strict=True)
    ]
    longest = max([len(title) + 4 for title in titles], default=0)
    widths[1] += max(0, longest - (sum(widths) + 5 * len(widths) - 1))
    inner = sum(widths) + 5 * len(widths) - 1
    top = f"+{'-' * inner}+"
    cut = f"+{'+'.join('-' * (width + 4) for width in widths)}+" if grid else top
    under = cut if grid else f"+{'=' * inner}+"
    lines = []
    if titles:
        lines += [top, *(f"|{title.rjust(inner - 2)}  |" for title in titles)]
    return [*lines, cut, bar(columns, widths, draw), under, *(bar(row, widths, draw) for row in rows), cut]


def printed_value(value, unit=""):
    return "-" if value is None else f"{value}{unit}"


def per_cent(draw, fraction, *, sign=True):
    if fraction is None:
        return "-"
    whole = round(fraction * 100)
    return draw(st.sampled_from([f"{whole} %", f"{whole}%", f"  {whole} %"])) if sign else str(whole)


def device_row(draw, layout, device):
    star = "* " if device.default else draw(st.sampled_from(["", "  "]))
    values = {
        "Device": f"{star}{device.id}",
        "#": str(device.id),
        "Name": printed_value(device.name),
        "NAME": printed_value(device.name),
        "Token": "c29tZSBleGFtcGxlIHRleHQ=",
        "Model": printed_value(device.flavor),
        "Flavor": printed_value(device.flavor),
        "FLAVOR": printed_value(device.flavor),
        "Memory Usage": printed_value(device.memory_used_mib, " MiB"),
        "Total Memory": printed_value(device.memory_total_mib, " MiB"),
        "Utilization": per_cent(draw, device.utilization),
        "MEM USAGE(%)": per_cent(draw, device.memory_used_fraction, sign=False),
        "GPU UTIL(%)": per_cent(draw, device.utilization, sign=False),
    }
    return [values[column] for column in layout.columns]


def process_row(process):
    values = (process.device, process.job_id, process.pid, process.command)
    return [*(printed_value(value) for value in values), printed_value(process.memory_mib, " MiB")]


PROMPTS = ["$ moreh-smi", "(moreh) user@node:~$ moreh-smi", "$ node-1  pytorch | user  ~  moreh-smi", "**moreh-smi**"]
LOGS = [
    "[info] MoAI Accelerator is ready to use.",
    "[2024-04-22 00:50:36.870] [warning] Various batch size detected : 256, 1",
    "| INFO     | __main__:main:149 - [Step 1/144] | Loss: 1.2 | Duration: 66.07",
]


def disturbed(draw, lines):
    """The lines as one text, with none of the damage that leaves what was printed in doubt."""
    way = draw(st.sampled_from(["as it is", "CRLF", "doubled", "indented", "colored", "logs", "broken", "unclosed"]))
    if way == "CRLF":
        return "\r\n".join(lines) + "\r\n"
    if way == "doubled":
        return "\n\n".join(lines)
    if way == "indented":
        return "\n".join("    " + line for line in lines)
    if way == "colored":
        return "\n".join(f"\x1b[32m{line}\x1b[0m\x1b[K" for line in lines)
    if way == "logs":
        return "\n".join(line + "\n" + draw(st.sampled_from(LOGS)) for line in lines)
    if way == "broken":
        width = draw(st.integers(45, 150))
        pieces = [line[i : i + width] for line in lines for i in range(0, max(len(line), 1), width)]
        return "\n".join(piece.rstrip() for piece in pieces) if draw(st.booleans()) else "\n".join(pieces)
    if way == "unclosed" and not lines[-2].startswith("+"):
        return "\n".join([*lines[:-1], lines[-1][: draw(st.integers(0, len(lines[-1]) - 1))]])
    return "\n".join(lines)


@st.composite
def outputs(draw, commands=PIPED):
    """(lines, what they say) of one call of a tool."""
    layout = draw(st.sampled_from([*LAYOUTS, AP]))
    ids = draw(st.lists(st.integers(0, 5000), max_size=5, unique=True))
    shown = draw(devices(layout, ids))
    current, latest = draw(VERSION), draw(VERSION)
    if layout is AP:
        titles = [
            "Accelerator platform Version : v0.0.30",
            f"MoAI Framework Version : {current} Latest Version : {latest}",
        ]
        is_latest, is_current = True, True
    else:
        titles = [layout.title.format(current=current, latest=latest)] if layout.title else []
        is_current, is_latest = bool(layout.title), layout.title == CURRENT
        if layout.title == CURRENT and draw(st.booleans()):
            titles, is_current = [f"Current Version:   Latest Version: {latest}"], False
    lines = table(draw, titles, layout.columns, [device_row(draw, layout, d) for d in shown], grid=layout is AP)
    processes: tuple[ProcessState, ...] = ()
    if layout.has_processes and ids and draw(st.booleans()):
        processes = tuple(
            draw(
                st.lists(
                    st.builds(
                        ProcessState,
                        device=st.sampled_from(ids),
                        job_id=st.none() | st.integers(1, 10**7),
                        pid=st.none() | st.integers(1, 2**22),
                        command=commands,
                        memory_mib=MIB,
                    ),
                    max_size=4,
                )
            )
        )
        columns = ("Device", "Job ID", "PID", "Process", "Memory Usage")
        lines += ["", "Processes:", *table(draw, [], columns, [process_row(p) for p in processes])]
    before = draw(st.lists(st.sampled_from([*PROMPTS, "", "14:23:17 September 12, 2023"]), max_size=3))
    reading = ToolStatus(
        tool="ap-smi" if layout is AP else "moreh-smi",
        version_current=current if is_current else None,
        version_latest=latest if is_latest else None,
        devices=shown,
        processes=processes,
    )
    return [*before, *lines], reading


@st.composite
def texts(draw):
    lines, reading = draw(outputs())
    return disturbed(draw, lines), reading


@given(texts())
def test_what_is_generated_is_what_is_read(case):
    text, reading = case
    assert read_devices(text) == reading


@given(outputs(commands=COMMAND))
def test_lost_line_breaks_change_nothing(case):
    lines, reading = case
    assert read_devices("".join(lines)) == reading


@given(outputs(), outputs())
def test_the_last_of_several_outputs_holds(first, second):
    text = "\n".join([*first[0], "", "$ moreh-smi", *second[0]])
    assert read_devices(text) == second[1]


@st.composite
def menus(draw):
    flavors = draw(st.lists(st.tuples(FLAVOR, st.booleans()), min_size=1, max_size=16))
    star = draw(st.none() | st.integers(0, len(flavors) - 1))
    marker = draw(st.sampled_from(["*", " *", "  *"]))
    lines = [f"{i + 1}. {flavor}{marker if i == star else ''}" for i, (flavor, _) in enumerate(flavors)]
    return lines, [flavor for flavor, _ in flavors], star


@given(menus(), menus(), NAME, FLAVOR)
def test_a_session_is_read_as_it_was_printed(first, second, name, flavor):
    lines = ["$ moreh-switch-model", f"Current {name}: {flavor.replace(' ', ' at ')}", "", *first[0], ""]
    lines += [f"Selection (1-{len(first[0])}, q, Q): 1", f'The {name} model is successfully switched to  "{flavor}".']
    lines += ["", *second[0], "", f"Selection (1-{len(second[0])}, q, Q): "]
    session = switch_model.read_session("\n".join(lines))
    assert session.accelerator == name
    assert " ".join(filter(None, [session.flavor, session.group])) == flavor
    assert [" ".join(filter(None, [s.flavor, s.group])) for s in session.switched] == [flavor]
    for menu, (_, flavors, star) in zip(session.menus, (first, second), strict=True):
        assert [" ".join(filter(None, [f.flavor, f.group])) for f in menu.flavors] == flavors
        assert [f.index - 1 for f in menu.flavors if f.is_marked] == ([] if star is None else [star])
        assert menu.is_asking
    assert [menu.typed for menu in session.menus] == ["1", None]


@st.composite
def configurations(draw):
    stages = draw(st.none() | st.integers(1, 64))
    micro, batch = draw(st.integers(1, 999)), draw(st.integers(1, 99))
    spelled, recomputation, level = draw(
        st.sampled_from(
            [
                ("false", False, None),
                ("true", True, None),
                ("0", False, 0),
                ("default(1)", True, 1),
                ("full(2)", True, 2),
            ]
        )
    )
    distributed, low = draw(st.booleans()), draw(st.none() | st.booleans())
    start = f"num_stages : {stages}, num_micro_batches : {micro}, batch_per_device : {batch}" if stages else "No PP"
    line = f"{start}, No TP, recomputation : {spelled}, distribute_param : {str(distributed).lower()}"
    if low is not None:
        line += f", distribute_low_prec_param : {str(low).lower()}"
    return parallel_configuration.ParallelConfiguration(
        num_stages=stages or 1,
        num_micro_batches=micro if stages else None,
        batch_per_device=batch if stages else None,
        tensor_parallel=1,
        recomputation=recomputation,
        recomputation_level=level,
        distribute_param=distributed,
        distribute_low_prec_param=low,
        spelled=line,
    )


@given(configurations(), st.sampled_from(["", "[info] ", "[2024-04-22 00:51:28.447] [info] "]))
def test_a_configuration_is_read_as_it_was_spelled(expected, prefix):
    line = TerminalLine(number=1, text=expected.spelled)
    assert parallel_configuration.parse_configuration(line) == expected
    if prefix:
        (search,) = training_log.read_training_log(f"noise\n{prefix}{expected.spelled}\nnoise").searches
        assert search.selected == expected


# -- what nobody foresaw


def every_reader(text):
    for read in (
        read_devices,
        moreh_smi.read_physical_devices,
        switch_model.read_session,
        training_log.read_training_log,
    ):
        with contextlib.suppress(TunemarkError):
            read(text)


@given(st.text() | st.text(st.sampled_from("+-=|*%\n\r \x1b[C0a:.()")))
def test_no_text_raises_anything_but_a_complaint(text):
    every_reader(text)


EDIT = st.tuples(
    st.floats(0, 1), st.integers(0, 12), st.text(max_size=4) | st.sampled_from(["|", "\n", "+---+", "\x1b["])
)


@given(data=st.data(), edits=st.lists(EDIT, min_size=1, max_size=6))
def test_no_mutation_of_an_output_raises_anything_but_a_complaint(printed, fixture_names, data, edits):
    text = printed(data.draw(st.sampled_from(fixture_names)))
    for where, removed, inserted in edits:
        at = int(where * len(text))
        text = text[:at] + inserted + text[at + removed :]
    every_reader(text)


@given(outputs(), st.data())
def test_a_cut_output_is_refused_or_its_whole_rows_are_read(case, data):
    """Wherever an output ends, a device that is read is one that was printed."""
    lines, reading = case
    text = "\n".join(lines)
    with contextlib.suppress(TunemarkError):
        cut = read_devices(text[: data.draw(st.integers(0, len(text)))])
        # A star that is cut away takes with it what the others' lack of one says.
        plain = [replace(device, default=None) for device in reading.devices]
        assert [replace(device, default=None) for device in cut.devices] == plain[: len(cut.devices)]
        assert cut.processes == reading.processes[: len(cut.processes)]
