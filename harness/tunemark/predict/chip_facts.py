"""Facts of a chip by name for the cost model: data sheet, links, and the efficiency that its class reaches.

Peaks and bandwidths come from `physics.chips`, links from `physics.links`, efficiencies from `efficiency_constants`.
Whatever no source states is assumed, with a sentence in `DeviceFacts.assumptions` for each assumption; classes of chips
without a published row have wider bounds.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunemark.errors import BadData
from tunemark.fields import read_fields
from tunemark.number_format import GIB
from tunemark.physics.chip_peaks import find_chip
from tunemark.physics.chips import Chip, find_interconnect
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.efficiency_constants import find_class_efficiency

# Memory bandwidth (bytes/s) of chips for which the table of chips has none because variants differ or no page confirms
# it: that of the faster variant, as vendors state it.
_BANDWIDTHS: Mapping[str, float] = {
    "A100": 2.039e12, "A100-80GB": 2.039e12, "A100-40GB": 1.555e12, "H100": 3.35e12, "H100-NVL-94GB": 3.9e12,
    "GH200": 4.0e12, "A10": 6.0e11, "V100S-PCIe": 1.134e12, "T4": 3.2e11, "TPU-v7x": 7.37e12,
}  # fmt: skip

# Streaming multiprocessors of a package by class: NVIDIA's white papers on A100, H100 and Blackwell.
_MULTIPROCESSORS: Mapping[str, int] = {"ampere": 108, "hopper": 132, "blackwell": 148}
# Memory (bytes) of chips for which the table of chips has none: NVIDIA/dgxc-benchmarking, README.
_MEMORIES: Mapping[str, float] = {"GB300": 279 * GIB, "GH200": 96 * GIB, "A100": 80 * GIB, "V100-SXM": 32 * GIB}

# Bytes/s of one package to host memory, and the same back: NVLink-C2C has 900 GB/s both ways together, which two GPUs
# share on GB200 and GB300.
_HOST_LINKS: Mapping[str, float] = {"GH200": 450e9, "GB200": 225e9, "GB300": 225e9}
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
    Raises `UnknownName` for a chip that is not in the table, `BadData` where its bandwidth or links are unknown.
    """
    found = find_chip(chip)
    assumptions = []
    bandwidth = found.bandwidth_bytes_per_s
    if bandwidth is None and found.name in _BANDWIDTHS:
        bandwidth = _BANDWIDTHS[found.name]
        assumptions.append(f"a memory of {bandwidth / 1e12:.2f} TB/s, which variants of {found.name} differ in")
    memory_bytes: float | None = found.memory_bytes
    if memory_bytes is None and found.name in _MEMORIES:
        memory_bytes = _MEMORIES[found.name]
        assumptions.append(f"a memory of {memory_bytes / GIB:.0f} GiB, which variants of {found.name} differ in")
    links = find_interconnect(found.name)
    if bandwidth is None or links is None:
        what = "the bandwidth of its memory" if bandwidth is None else "its links to others"
        raise BadData(
            what=f"{found.name} cannot be predicted", why=f"{what} is not known", next="calibrate on the device itself"
        )
    if links.note and node is None and inter_bytes_per_s is None:
        assumptions.append(links.note)
    shares = find_class_efficiency(found.name, rated_power(found))
    assumptions += shares.assumptions
    return DeviceFacts(
        name=found.name,
        **read_fields(shares, "kind", "efficiency", "residual", "memory_residual"),
        peak_flops=found.flops,
        memory_bytes=memory_bytes,
        bandwidth_bytes_per_s=bandwidth,
        node=node or links.node,
        intra_bytes_per_s=intra_bytes_per_s or links.intra_bytes_per_s,
        inter_bytes_per_s=inter_bytes_per_s or links.inter_bytes_per_s,
        units=_MULTIPROCESSORS.get(shares.kind, 0),
        host_bytes_per_s=_HOST_LINKS.get(found.name, 0.0),
        source=f"{found.source}; {links.source}",
        assumptions=tuple(assumptions),
    )


def rated_power(chip: Chip) -> float | None:
    """Rated watts of a package: the vendor's figure, or what others state where that is not confirmed."""
    return chip.power_w or _POWERS.get(chip.name)
