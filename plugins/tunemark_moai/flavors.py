"""The hardware of each flavor, by the flavor's name, where it is documented.

Source: Moreh's documentation of KT's installation (moreh-2024docs-test, KT_HAC_Models_Info.md): an MI250 is two devices
of 64 GB, a server has four MI250. A device's usable memory, 65,520 MiB, is what `moreh-smi` shows for a Small.64GB,
and the `Memory available` of the platform's own message. Other sites use other names and other hardware, which is not
documented; nor is that of the names `flavor-default-N`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tunemark.physics.peaks import find_peak
from tunemark.plugin.descriptors import Accelerator

DEVICE_MIB = 65520
_GB_PER_DEVICE = 64
_DEVICES_PER_MI250 = 2
CHIP = "MI250"
SOURCE = "KT_HAC_Models_Info.md of moreh-2024docs-test: 1 MI250 = 2 devices of 64 GB"


class FlavorHardware(NamedTuple):
    """devices: how many of 64 GB. nodes: how many servers, None where the source's table lacks the flavor."""

    devices: int
    nodes: int | None


# In the order of the menus of 24.x.
_HARDWARE = {
    "Small.64GB": FlavorHardware(1, 1),
    "Medium.128GB": FlavorHardware(2, 1),
    "Large.256GB": FlavorHardware(4, 1),
    "xLarge.512GB": FlavorHardware(8, 1),
    "1.5xLarge.768GB": FlavorHardware(12, None),
    "2xLarge.1024GB": FlavorHardware(16, 2),
    "3xLarge.1536GB": FlavorHardware(24, 3),
    "4xLarge.2048GB": FlavorHardware(32, 4),
    "6xLarge.3072GB": FlavorHardware(48, 6),
    "8xLarge.4096GB": FlavorHardware(64, 8),
    "12xLarge.6144GB": FlavorHardware(96, 12),
    "24xLarge.12288GB": FlavorHardware(192, 24),
    "48xLarge.24576GB": FlavorHardware(384, 48),
}
_BY_NAME = {name.casefold(): name for name in _HARDWARE}
# Values of ACCELERATOR_PLATFORM_FLAVOR, for 25.3.208 and later, in the examples of moreh-dev/moai-examples.
DEFAULT_FLAVORS = ("flavor-default-8", "flavor-default-16", "flavor-default-32")

DOCUMENTED_FLAVORS = (*_HARDWARE, *DEFAULT_FLAVORS)


def make_accelerator(flavor: str, *, is_present: bool, is_simulated: bool = False) -> Accelerator:
    """The `Accelerator` of a flavor. What is not documented is None, and `source` says so."""
    name = _BY_NAME.get(flavor.casefold(), flavor)
    made = _HARDWARE.get(name)
    if made is None:
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
    packages, half = divmod(made.devices, _DEVICES_PER_MI250)
    return Accelerator(
        name=flavor if is_present else name,
        chip=CHIP,
        # A single device is half an MI250, which no whole number of chips describes.
        chips=None if half else packages,
        memory_bytes=made.devices * DEVICE_MIB << 20,
        # The simulator has no peak. There is none for fp32 either: the precision that such a model is computed in
        # depends on the platform's mixed precision.
        peak_flops={} if is_simulated else {"bf16": of_one.flops * made.devices / _DEVICES_PER_MI250},
        source=f"{SOURCE}; {of_one.source}",
        parts=made.devices,
        part_memory_bytes=DEVICE_MIB << 20,
        nodes=made.nodes,
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
