"""The hardware of each flavor, by the flavor's name, where it is documented.

Source: Moreh's documentation of KT's installation (moreh-2024docs-test, KT_HAC_Models_Info.md): an MI250 is two devices
of 64 GB, a server has four MI250. A device's usable memory, 65,520 MiB, is what `moreh-smi` shows for a Small.64GB,
and the `Memory available` of the platform's own message. Other sites use other names and other hardware, which is not
documented; nor is that of the names `flavor-default-N`.
"""

from __future__ import annotations

import re

from tunemark.physics.chip_peaks import find_peak
from tunemark.plugin.descriptors import Accelerator
from tunemark_moai.flavor_table import DEVICE_MIB, FLAVOR_DEVICES, MENU_FLAVORS

_GB_PER_DEVICE = 64
_DEVICES_PER_MI250 = 2
_DEVICES_PER_SERVER = 8
CHIP = "MI250"
SOURCE = "KT_HAC_Models_Info.md of moreh-2024docs-test: 1 MI250 = 2 devices of 64 GB"


_BY_NAME = {name.casefold(): name for name in MENU_FLAVORS}
# The source's table of servers lacks this flavor.
_WITHOUT_SERVERS = "1.5xLarge.768GB"
DOCUMENTED_FLAVORS = tuple(FLAVOR_DEVICES)


def make_accelerator(flavor: str, *, is_present: bool, is_simulated: bool = False) -> Accelerator:
    """The `Accelerator` of a flavor. What is not documented is None, and `source` says so."""
    name = _BY_NAME.get(flavor.casefold(), flavor)
    devices = MENU_FLAVORS.get(name)
    if devices is None:
        return Accelerator(
            name=flavor,
            chip="unknown",
            chips=None,
            memory_bytes=None,
            source="no document says what this flavor is made of",
            is_present=is_present,
            is_simulated=is_simulated,
            can_calibrate=False,
        )
    of_one = find_peak(CHIP, "bf16", 1)
    assert of_one is not None
    packages, half = divmod(devices, _DEVICES_PER_MI250)
    return Accelerator(
        name=flavor if is_present else name,
        chip=CHIP,
        # A single device is half an MI250, which no whole number of chips describes.
        chips=None if half else packages,
        memory_bytes=devices * DEVICE_MIB << 20,
        # The simulator has no peak. There is none for fp32 either: the precision that such a model is computed in
        # depends on the platform's mixed precision.
        peak_flops={} if is_simulated else {"bf16": of_one.flops * devices / _DEVICES_PER_MI250},
        source=f"{SOURCE}; {of_one.source}",
        parts=devices,
        part_memory_bytes=DEVICE_MIB << 20,
        nodes=None if name == _WITHOUT_SERVERS else -(-devices // _DEVICES_PER_SERVER),
        is_present=is_present,
        is_simulated=is_simulated,
        can_calibrate=False,
    )


def memory_sort_key(flavor: str) -> tuple[float, str]:
    """A sort key by memory: the GB in the name, else its last number in units of 64 GB, else after all others."""
    memory = re.search(r"\.([0-9]+)(?:GB)?$", flavor, re.I)
    number = re.search(r"([0-9]+)$", flavor)
    if memory:
        return float(memory.group(1)), flavor
    return (float(number.group(1)) * _GB_PER_DEVICE if number else float("inf")), flavor
