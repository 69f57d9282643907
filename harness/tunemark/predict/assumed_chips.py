"""Chips whose figures no vendor's page here confirms, as they are commonly stated: for predictions alone, never for a
utilization. A prediction with one says so and has wider bounds. Data.

GeForce cards add products in 32 bits at half of their full rate, which is what training uses and what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunemark.number_format import GIB
from tunemark.physics.chips import Chip, Interconnect

_SAID = "as commonly stated, confirmed by no vendor's page here"
_PCIE_4 = Interconnect(node=8, intra_bytes_per_s=31e9, inter_bytes_per_s=12.5e9, source="PCI Express x16, generation 4")
_PCIE_5 = Interconnect(node=8, intra_bytes_per_s=63e9, inter_bytes_per_s=12.5e9, source="PCI Express x16, generation 5")
_ASCEND = Interconnect(node=8, intra_bytes_per_s=196e9, inter_bytes_per_s=25e9, source="HCCS, 392 GB/s both ways")
_TRAINIUM = Interconnect(
    node=16, intra_bytes_per_s=192e9, inter_bytes_per_s=6.25e9,
    source="NeuronLink 2, 384 GB/s both ways; 800 Gbit/s of network for 16 chips",
)  # fmt: skip


def _chip(
    name: str, tera: float, memory: int, bandwidth: float, power: float | None, links: Interconnect, *aliases: str,
    eight: float = 0.0, four: float = 0.0, vendor: str = "NVIDIA",
) -> Chip:  # fmt: skip
    """tera: TFLOP/s of 16-bit products, added in 32 bits; eight, four: likewise of 8 and 4 bits. memory: GiB.
    bandwidth: GB/s."""
    flops = {"fp32": tera / 4, "tf32": tera / 2, "bf16": tera, "fp16": tera, "fp8": eight, "fp4": four}
    return Chip(
        name=name,
        vendor=vendor,
        aliases=aliases,
        flops={each: rate * 1e12 for each, rate in flops.items() if rate},
        memory_bytes=memory * GIB,
        bandwidth_bytes_per_s=bandwidth * 1e9,
        power_w=power,
        is_ceiling=False,
        interconnect=links,
        source=_SAID,
    )


ASSUMED_CHIPS = (
    _chip("RTX-3080", 59.5, 10, 760, 320, _PCIE_4),
    _chip("RTX-3090Ti", 80, 24, 1008, 450, _PCIE_4, "RTX 3090 Ti"),
    _chip("RTX-4060Ti", 44.1, 16, 288, 165, _PCIE_4, "RTX 4060 Ti", "RTX 4060 Ti 16GB", eight=88.2),
    _chip("RTX-4070", 58.3, 12, 504, 200, _PCIE_4, eight=116.6),
    _chip("RTX-4070Ti", 80.2, 12, 504, 285, _PCIE_4, "RTX 4070 Ti", eight=160.4),
    _chip("RTX-5070", 61.7, 12, 672, 250, _PCIE_5, eight=123.5, four=494),
    _chip("RTX-5070Ti", 87.9, 16, 896, 300, _PCIE_5, "RTX 5070 Ti", eight=175.8, four=703),
    _chip("RTX-5080", 112.6, 16, 960, 360, _PCIE_5, eight=225.1, four=901),
    _chip("RTX-3060", 25.6, 12, 360, 170, _PCIE_4),
    _chip("RTX-4080-SUPER", 104.4, 16, 736, 320, _PCIE_4, eight=208.9),
    _chip("RTX-A4000", 76.7, 16, 448, 140, _PCIE_4),
    _chip("RTX-A5000", 111, 24, 768, 230, _PCIE_4),
    _chip("RTX-PRO-6000-Server", 480, 96, 1597, 600, _PCIE_5, "RTX PRO 6000 Blackwell Server Edition", eight=960,
          four=1920),
    _chip("Ascend-910B", 376, 64, 1600, 400, _ASCEND, "Ascend 910B2", "Huawei Ascend 910B", vendor="Huawei"),
    _chip("Trainium1", 95, 32, 820, None, _TRAINIUM, "Trainium", "trn1", eight=190, vendor="Amazon"),
)  # fmt: skip

# Peaks of confirmed chips in precisions that the table of chips leaves out.
ASSUMED_PEAKS: Mapping[str, Mapping[str, float]] = {
    "RTX-4090": {"fp8": 330.3e12},
    "B300": {"fp4": 13.5e15},
    "H100-NVL-94GB": {"fp8": 1.671e15},
    "TPU-v4": {"fp8": 275e12},
}
# The assumption that a prediction lists where it takes one of these figures.
ASSUMED_SOURCE = _SAID
