"""Every layout of `moreh-smi`, from 0.8.0 to 25.1.202, and what its options print."""

from datetime import datetime

import pytest

from tunemark.errors import TunemarkError
from tunemark.plugin import DeviceState, ProcessState
from tunemark_moai import moreh_smi
from tunemark_moai.tables import find_tables
from tunemark_moai.terminal_text import split_lines


def read_status(text):
    return moreh_smi.parse_status(find_tables(split_lines(text), moreh_smi.TABLE_KINDS))


NAME = "Some AI Device"

TOP = "+-----+\n|  Current Version: 24.5.0  Latest Version: 24.5.0  |\n+-----+\n"
HEADER = "|  Device  |  Name  |  Model  |  Memory Usage  |  Total Memory  |  Utilization  |\n+=====+\n"


def test_the_oldest_layout_has_a_token_and_two_versions(printed):
    status = read_status(printed("moreh-smi-0.8"))
    assert (status.version_current, status.version_latest, status.version_server) == ("0.8.0", None, "0.8.1")
    assert status.devices == (
        DeviceState(id=7, name=NAME, flavor="small.16gb", memory_used_mib=1042, memory_total_mib=16368),
    )
    assert status.processes == (
        ProcessState(device=7, job_id=4211, pid=30211, command="python first.py", memory_mib=1042),
    )
    assert status.at is None


def test_an_idle_machine_of_22_7_shows_an_empty_block_of_processes(printed):
    status = read_status(printed("moreh-smi-22.7-idle"))
    assert (status.version_current, status.version_server) == ("22.7.0", "22.8.0")
    assert status.devices == (DeviceState(id=23, name=NAME, flavor="Medium.128GB"),)
    assert status.processes == ()


def test_a_busy_device_of_22_10_tells_no_utilization(printed):
    status = read_status(printed("moreh-smi-22.10"))
    assert status.at == datetime(2022, 11, 3, 9, 5, 59)
    assert status.devices == (
        DeviceState(
            id=3055, default=True, name=NAME, flavor="Large.256GB", memory_used_mib=31007, memory_total_mib=262080
        ),
    )
    assert status.processes == (ProcessState(device=3055, job_id=41210, pid=9915, command="python", memory_mib=31007),)


def test_a_title_may_stand_in_the_first_cell_of_a_grid(printed):
    status = read_status(printed("moreh-smi-22.10-grid"))
    assert (status.version_current, status.version_latest) == ("22.10.2", "23.3.0")
    assert status.devices == (
        DeviceState(id=1733, name=NAME, flavor="Medium.128GB", memory_used_mib=88041, memory_total_mib=131040),
    )
    assert status.processes is None


def test_dashes_are_unknown_and_bars_belong_to_the_command(printed):
    status = read_status(printed("moreh-smi-23.9"))
    assert (status.version_current, status.version_latest) == ("23.9.0", "23.8.1")
    assert status.at == datetime(2023, 10, 2, 7, 1, 30)
    assert status.devices == (
        DeviceState(id=1, default=False, name=NAME),
        DeviceState(
            id=2,
            default=True,
            name=NAME,
            flavor="8xLarge.4096GB",
            memory_used_mib=56,
            memory_total_mib=4193280,
            utilization=0.29,
        ),
        DeviceState(id=5, default=False, name=NAME, flavor="2xLarge.1024GB"),
    )
    assert [p.command for p in status.processes or ()] == ['python train.py | tee log || echo "a|b"']


def test_lost_line_breaks_are_told_from_the_borders(printed):
    status = read_status(printed("moreh-smi-23.9-newlines-lost"))
    assert status.at == datetime(2023, 8, 21, 22, 10, 9)
    assert [(d.id, d.default, d.flavor, d.memory_used_mib, d.utilization) for d in status.devices] == [
        (0, False, "Small.64GB", None, None),
        (1, True, "Large.256GB", 900, 0.04),
    ]
    assert [(p.job_id, p.command) for p in status.processes or ()] == [(900001, "python a.py")]


@pytest.mark.parametrize("name", ["moreh-smi-24.5", "moreh-smi-24.5-80-columns"])
def test_several_devices_and_processes_also_where_a_narrow_terminal_broke_them(printed, name):
    status = read_status(printed(name))
    assert (status.version_current, status.version_latest) == ("24.5.0", "24.5.0")
    assert [
        (d.id, d.default, d.flavor, d.memory_used_mib, d.memory_total_mib, d.utilization) for d in status.devices
    ] == [
        (0, False, "4xLarge.2048GB", 1203456, 2096640, 0.91),
        (1, True, "xLarge.512GB", 655, 524160, 0.0),
    ]
    assert status.processes == (
        ProcessState(
            device=0,
            job_id=980001,
            pid=3100200,
            command="python tutorial/train_one.py --batch-size 4",
            memory_mib=1203456,
        ),
        ProcessState(device=1, job_id=980004, pid=3100977, command="python tutorial/train_two.py", memory_mib=655),
    )


def test_a_lone_device_without_a_star_is_not_said_to_be_no_default(printed):
    status = read_status(printed("moreh-smi-24.5-flavor"))
    assert (status.version_current, status.version_latest) == (None, "24.5.0")
    assert status.devices == (
        DeviceState(
            id=0,
            default=None,
            name=NAME,
            flavor="3xLarge.1536GB",
            memory_used_mib=1234567,
            memory_total_mib=1572480,
            utilization=1.0,
        ),
    )


def test_the_last_version_before_ap_smi(printed):
    status = read_status(printed("moreh-smi-25.1"))
    assert (status.version_current, status.version_latest) == ("25.1.202", "25.1.201")
    assert status.devices == (DeviceState(id=0, default=True, name="Other AI Accelerator", flavor="large"),)


def test_the_parts_of_the_running_job(printed):
    parts = moreh_smi.read_physical_devices(printed("moreh-smi-p"))
    assert parts.at == datetime(2024, 7, 1, 8, 30)
    first, second, third = parts.parts
    assert first == moreh_smi.PhysicalDevice(
        id=0,
        host="rack07",
        index=6,
        temperature_c=51,
        memory_temperature_c=60,
        utilization=1.0,
        memory_utilization=0.31,
        memory_used_fraction=0.57,
    )
    assert (second.memory_utilization, second.memory_used_fraction) == (0.0, None)
    assert (third.host, third.index, third.temperature_c) == ("rack41", 0, None)


def test_tokens_are_not_shown(printed):
    assert "c29t" not in repr(read_status(printed("moreh-smi-token")))
    status = read_status(printed("moreh-smi-token-22.10"))
    assert (status.version_current, status.version_latest) == ("22.10.2", None)


def test_the_table_after_the_choice_holds(printed):
    status = read_status(printed("moreh-smi-device-switch"))
    assert [(d.id, d.default, d.flavor) for d in status.devices] == [
        (0, False, "2xLarge.1024GB"),
        (1, True, "xLarge.512GB"),
    ]
    assert (status.version_current, status.devices[0].memory_total_mib) == (None, None)


def test_thousands_bold_and_missing_blanks_of_documents_are_read():
    row = "|  **0**  |  **A B**  |  **large**  |  1,705,386 MiB  |  2096640MiB  |  7%  |\n"
    (device,) = read_status(TOP + HEADER + row).devices
    assert (device.id, device.name, device.flavor) == (0, "A B", "large")
    assert (device.memory_used_mib, device.memory_total_mib, device.utilization) == (1705386, 2096640, 0.07)


def test_lines_of_a_training_program_between_rows_are_passed_over():
    rows = (
        "|  * 0  |  A  |  large  |  -  |  -  |  -  |\n"
        "[2024-04-22 00:50:36.870] [info] A is ready to use.\n"
        "| INFO     | __main__:main:149 - [Step 1/144] | Loss: 1.2 | Duration: 66.07\n"
        "Map: 100%|#########| 5/5 [00:01<00:00]\n"
        "|    1  |  A  |  small  |  -  |  -  |  -  |\n+-----+\n"
    )
    assert [d.id for d in read_status(TOP + HEADER + rows).devices] == [0, 1]


def row(number, *, name="A", flavor="large", used="-", total="-", busy="-"):
    return f"|  {number}  |  {name}  |  {flavor}  |  {used}  |  {total}  |  {busy}  |\n"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("|  0  |  A  |  large  |  -  |  -  |\n", r"5 cells, its header 6.*line 6: \"\|  0  \|"),
        ("|  0  |  A  |  large  |  -  |  -  |  -  |  -  |\n", "7 cells, its header 6"),
        ("|  0  |  A  |  large  |  -  |  -  |  10", "cut off.*line 6"),
        (row("zero"), "'zero' in column 'device'.*a whole number"),
        (row("-"), "'-' in column 'device'"),
        (row(0, used="12"), "'12' in column 'memory usage'.*a size in MiB"),
        (row(0, used="12 GiB"), "'12 GiB' in column 'memory usage'"),
        (row(0, total="1,2 MiB"), "'1,2 MiB' in column 'total memory'"),
        (row(0, busy="busy"), "'busy' in column 'utilization'.*per cent"),
        (row(0, busy="42"), "'42' in column 'utilization'"),
        (row(0, flavor="?large"), "column 'model'.*a flavor like"),
        (row(0) + row(0), "device 0 is in the table twice.*line 6"),
        (row("* 0") + row("* 1"), "more than one device has the star.*line 7"),
        (row(0) + "  1     A     y     -\n+-----+\n", "not part of it.*line 7"),
        (row(0) + "  torn\n" + row(1), "not part of it.*line 7"),
        (row(0) + "+----+\nmore\n" + row(1), "without a known header.*line 9"),
        ("", "ends after its header.*line 4"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(rows, complaint):
    with pytest.raises(TunemarkError, match=f"(?s){complaint}"):
        read_status(TOP + HEADER + rows)


def test_an_unknown_word_in_the_header_is_named():
    with pytest.raises(TunemarkError, match="unknown columns: power"):
        read_status("|  Device  |  Name  |  Model  |  Power  |\n|  0  |  A  |  x  |  300 W  |\n")


def test_a_version_that_is_none_is_refused():
    with pytest.raises(TunemarkError, match="the version 'soon' is not understood"):
        read_status(TOP.replace("24.5.0  |", "soon  |") + HEADER + row(0))


def test_a_day_that_is_none_is_no_date():
    assert read_status("10:00:00 February 31, 2024\n" + TOP + HEADER + row(0)).at is None
