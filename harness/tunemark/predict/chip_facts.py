"""Facts of a chip by name for the cost model: data sheet, links, and the efficiency that its class reaches.

Peaks and bandwidths come from `physics.chips`, links from `physics.links`, efficiencies from `efficiency_constants`.
Whatever no source states is assumed, with a sentence in `DeviceFacts.assumptions` for each assumption; classes of chips
without a published row have wider bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunemark.errors import BadData, UnknownName
from tunemark.fields import read_fields
from tunemark.number_format import GIB
from tunemark.physics.chip_peaks import find_chip, make_chip_key
from tunemark.physics.chips import Chip, Interconnect, find_interconnect
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.assumed_chips import ASSUMED_CHIPS, ASSUMED_PEAKS, ASSUMED_SOURCE
from tunemark.predict.efficiency_constants import find_class_efficiency

# Memory bandwidth (bytes/s) of chips for which the table of chips has none because variants differ or no page confirms
# it: that of the faster variant, as vendors state it.
_BANDWIDTHS: Mapping[str, float] = {
    "A100": 2.039e12, "A100-80GB": 2.039e12, "A100-40GB": 1.555e12, "H100": 3.35e12, "H100-NVL-94GB": 3.9e12,
    "GH200": 4.0e12, "B300": 8e12, "A10": 6.0e11, "V100S-PCIe": 1.134e12, "T4": 3.2e11, "TPU-v7x": 7.37e12,
}  # fmt: skip

# Streaming multiprocessors of a package by class: NVIDIA's white papers on A100, H100 and Blackwell.
_MULTIPROCESSORS: Mapping[str, int] = {"ampere": 108, "hopper": 132, "blackwell": 148}
# The same of cards, by the beginning of their names: NVIDIA's white papers on Ada and on Blackwell's cards.
_CARD_MULTIPROCESSORS: Mapping[str, int] = {
    "A40": 84, "A10": 72, "RTX-A6000": 84, "L40S": 142, "L4": 58, "RTX-6000-Ada": 142, "RTX-4090": 128,
    "RTX-3090": 82, "RTX-5090": 170, "RTX-5080": 84, "RTX-5060Ti": 36, "RTX-PRO-6000": 188, "H20": 78,
}  # fmt: skip
# Memory (bytes) of chips for which the table of chips has none: NVIDIA/dgxc-benchmarking, README.
_MEMORIES: Mapping[str, float] = {"GB300": 279 * GIB, "GH200": 96 * GIB, "A100": 80 * GIB, "V100-SXM": 32 * GIB}

# Bytes/s of one package to host memory, and the same back: NVLink-C2C has 900 GB/s both ways together, which two GPUs
# share on GB200 and GB300.
_HOST_LINKS: Mapping[str, float] = {"GH200": 450e9, "GB200": 225e9, "GB300": 225e9}
# Of a chip whose links no page states: one to a node, and a network of 100 Gbit/s.
_UNKNOWN_LINKS = Interconnect(
    node=1, intra_bytes_per_s=12.5e9, inter_bytes_per_s=12.5e9, source="none stated",
    note="12.5 GB/s to other devices, because the chip's links are not known",
)  # fmt: skip
# Forms of delivery that make no other chip, where one is known without them.
_FORM = re.compile(r"[\s-]*(?:\b(?:sxm\d?|hgx|oam|baseboard)\b|(?<!\d)\d{2,3} ?gb\b)", re.IGNORECASE)
# Standard deviation of the logarithm of predicted memory where the layout is known.
_MEMORY_RESIDUAL = 0.05
# Rated power (watts) of chips for which the table of chips has none: stas00/ml-engineering,
# compute/accelerator/README.md.
_POWERS: Mapping[str, float] = {"GB300": 1400.0, "B300": 1100.0}


def device_facts(
    chip: str,
    *,
    node: int | None = None,
    intra_bytes_per_s: float | None = None,
    inter_bytes_per_s: float | None = None,
) -> DeviceFacts:
    """Facts of a chip under any common spelling ("MI250 GCD" is one die), with the fitted efficiency of its class.

    node, intra_bytes_per_s, inter_bytes_per_s: of an actual machine where it differs from the vendor's reference.
    Raises `UnknownName` for a chip that is in no table, `BadData` where its bandwidth or links are unknown.
    """
    found, is_assumed = find_any_chip(chip)
    assumptions = [f"the figures of {found.name} {ASSUMED_SOURCE}"] if is_assumed else []
    bandwidth = found.bandwidth_bytes_per_s
    if bandwidth is None and found.name in _BANDWIDTHS:
        bandwidth = _BANDWIDTHS[found.name]
        assumptions.append(f"a memory of {bandwidth / 1e12:.2f} TB/s, which variants of {found.name} differ in")
    memory_bytes: float | None = found.memory_bytes
    if memory_bytes is None and found.name in _MEMORIES:
        memory_bytes = _MEMORIES[found.name]
        assumptions.append(f"a memory of {memory_bytes / GIB:.0f} GiB, which variants of {found.name} differ in")
    if bandwidth is None:
        raise BadData(
            what=f"{found.name} cannot be predicted",
            why="the bandwidth of its memory is not known",
            next="calibrate on the device itself",
        )
    links = (found.interconnect if is_assumed else find_interconnect(found.name)) or _UNKNOWN_LINKS
    if links.note and node is None and inter_bytes_per_s is None:
        assumptions.append(links.note)
    shares = find_class_efficiency(found.name, rated_power(found))
    assumptions += shares.assumptions
    return DeviceFacts(
        name=found.name,
        **read_fields(shares, "kind", "efficiency"),
        memory_residual=_MEMORY_RESIDUAL,
        peak_flops={**ASSUMED_PEAKS.get(found.name, {}), **found.flops},
        memory_bytes=memory_bytes,
        bandwidth_bytes_per_s=bandwidth,
        node=node or links.node,
        intra_bytes_per_s=intra_bytes_per_s or links.intra_bytes_per_s,
        inter_bytes_per_s=inter_bytes_per_s or links.inter_bytes_per_s,
        units=_count_multiprocessors(found.name, shares.kind),
        host_bytes_per_s=_HOST_LINKS.get(found.name, 0.0),
        bus_bytes_per_s=_HOST_LINKS.get(found.name) or _find_bus(shares.kind, links),
        source=f"{found.source}; {links.source}",
        assumptions=tuple(assumptions),
        is_published=True,
        is_network_known=inter_bytes_per_s is not None,
        is_chip_assumed=is_assumed,
    )


def find_any_chip(name: str) -> tuple[Chip, bool]:
    """The chip of that name, and whether its figures are only assumed. A name with form and memory ("B200-SXM-180GB")
    is that of the chip without, unless the memory is another."""
    try:
        return find_chip(name), False
    except UnknownName as error:
        table = {make_chip_key(each): chip for chip in ASSUMED_CHIPS for each in (chip.name, *chip.aliases)}
        found = table.get(make_chip_key(name))
        if found is not None:
            return found, True
        plain = _FORM.sub("", name).strip()
        if plain in ("", name):
            raise
        try:
            found, is_assumed = find_any_chip(plain)
        except UnknownName:
            raise error from None
        stated = re.search(r"(\d{2,3}) ?gb", name, re.IGNORECASE)
        if stated and found.memory_bytes and abs(found.memory_bytes / GIB / int(stated[1]) - 1) > 0.1:
            raise
        return found, is_assumed


def _count_multiprocessors(name: str, kind: str) -> int:
    found = [start for start in _CARD_MULTIPROCESSORS if name.startswith(start) and not name.startswith("A100")]
    return _CARD_MULTIPROCESSORS[max(found, key=len)] if found else _MULTIPROCESSORS.get(kind, 0)


def _find_bus(kind: str, links: Interconnect) -> float:
    """Bytes/s to host memory over PCI Express: generation 5 for chips of its time."""
    return 50e9 if kind in ("hopper", "blackwell", "cdna3", "cdna4") or links.intra_bytes_per_s == 63e9 else 25e9


def rated_power(chip: Chip) -> float | None:
    """Rated watts of a package: the vendor's figure, or what others state where that is not confirmed."""
    return chip.power_w or _POWERS.get(chip.name)
