"""The layout of `ap-smi`, from 25.3.208 on: per cent, no processes, no default."""

import pytest

from tunemark.errors import TunemarkError
from tunemark.plugin import DeviceState, ToolStatus
from tunemark_moai import ap_smi
from tunemark_moai.tables import find_tables
from tunemark_moai.terminal_text import split_lines


def read_status(text):
    return ap_smi.parse_status(find_tables(split_lines(text), (ap_smi.ACCELERATOR_TABLE,)))


HEADER = "|  #  |  NAME  |  FLAVOR  |  MEM USAGE(%)  |  GPU UTIL(%)  |\n"


def test_memory_is_per_cent_alone(printed):
    assert read_status(printed("ap-smi-25.4")) == ToolStatus(
        tool="ap-smi",
        version_current="25.4.3005",
        version_latest="25.5.3005",
        devices=(
            DeviceState(id=0, name="2048", flavor="flavor-default-16", memory_used_fraction=0.29, utilization=0.97),
            DeviceState(id=1, name="2050", flavor="flavor-default-8"),
        ),
    )


def test_an_empty_table_shows_no_accelerators():
    assert read_status(f"+----+\n{HEADER}+----+\n+----+\n").devices == ()


def test_the_same_accelerator_twice_is_refused():
    row = "|  0  |  a  |  b  |  1  |  2  |\n"
    with pytest.raises(TunemarkError, match="accelerator 0 is in the table twice"):
        read_status(HEADER + row + row)


def test_a_table_of_another_tool_is_refused(printed):
    with pytest.raises(TunemarkError, match="without a known header"):
        read_status(printed("moreh-smi-24.5"))
