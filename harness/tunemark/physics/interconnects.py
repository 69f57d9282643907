"""Interconnects of chips: bandwidths within and between nodes, and the number of packages in a node. Data only.

Rates are of one package in one direction, as vendors rate the links. A node here is all that the fast links span, which
is a rack of GB200s and a whole pod of TPUs. Where the product has no network of its own, that of the vendor's
reference system is assumed, and `note` says so: other clusters may be slower.
"""

from __future__ import annotations

from dataclasses import dataclass

GIGA = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Interconnect:
    """node: packages that the fast links connect. intra_bytes_per_s, inter_bytes_per_s: of one package, one direction,
    within and between nodes. note: assumptions."""

    node: int
    intra_bytes_per_s: float
    inter_bytes_per_s: float
    source: str
    note: str = ""


_ML_ENGINEERING = "stas00/ml-engineering @744d01e, network/README.md"
_TPU = "https://docs.cloud.google.com/tpu/docs/"
_PCIE = "PCI Express x16, generation 4: 31.5 GB/s, generation 5: 63 GB/s, half of what bridges of several cards reach"
_NIC = "a network of 100 Gbit/s for each card is assumed"
_ASSUMED = "a network of 200 Gbit/s for each package is assumed"

_AMPERE = Interconnect(
    node=8,
    intra_bytes_per_s=300 * GIGA,
    inter_bytes_per_s=25 * GIGA,
    source=f"{_ML_ENGINEERING} (NVLink 3, 600 GB/s both ways); DGX A100: 8 x 200 Gbit/s HDR InfiniBand",
    note="many clusters have half as much between nodes, or less",
)
_HOPPER = Interconnect(
    node=8,
    intra_bytes_per_s=450 * GIGA,
    inter_bytes_per_s=50 * GIGA,
    source=f"{_ML_ENGINEERING} (NVLink 4, 900 GB/s both ways); DGX H100: 8 x 400 Gbit/s NDR InfiniBand",
)
_BLACKWELL = "(NVLink 5, 1800 GB/s both ways)"
_CARD_4 = Interconnect(node=8, intra_bytes_per_s=31 * GIGA, inter_bytes_per_s=12.5 * GIGA, source=_PCIE, note=_NIC)
_CARD_5 = Interconnect(node=8, intra_bytes_per_s=63 * GIGA, inter_bytes_per_s=25 * GIGA, source=_PCIE, note=_ASSUMED)
_CDNA2 = Interconnect(
    node=4,
    intra_bytes_per_s=150 * GIGA,
    inter_bytes_per_s=25 * GIGA,
    source=f"{_ML_ENGINEERING} (Infinity Fabric, 50 GB/s a link each way); three links to other packages",
    note=_ASSUMED,
)
_CDNA3 = Interconnect(
    node=8,
    intra_bytes_per_s=448 * GIGA,
    inter_bytes_per_s=50 * GIGA,
    source=f"{_ML_ENGINEERING} (Infinity Fabric, 7 links of 64 GB/s each way)",
    note="a network of 400 Gbit/s for each package is assumed",
)
_CDNA4 = Interconnect(
    node=8,
    intra_bytes_per_s=535.5 * GIGA,
    inter_bytes_per_s=50 * GIGA,
    source=f"{_ML_ENGINEERING} (Infinity Fabric, 7 links of 76.5 GB/s each way)",
    note="a network of 400 Gbit/s for each package is assumed",
)
_VOLTA = Interconnect(
    node=8,
    intra_bytes_per_s=150 * GIGA,
    inter_bytes_per_s=12.5 * GIGA,
    source=f"{_ML_ENGINEERING} (NVLink 2, 300 GB/s both ways)",
    note=_NIC,
)

INTERCONNECTS: dict[str, Interconnect] = {
    **dict.fromkeys(("A100", "A100-SXM-40GB", "A100-SXM-80GB", "A100-80GB", "A100-40GB"), _AMPERE),
    **dict.fromkeys(("H100", "H100-SXM-80GB", "H100-SXM-96GB-500W", "H200", "GH200"), _HOPPER),
    **dict.fromkeys(("A100-PCIe-40GB", "A100-PCIe-80GB", "A40", "RTX-A6000", "A10", "RTX-4090", "L40S", "L4"), _CARD_4),
    **dict.fromkeys(("H100-PCIe-80GB", "H100-NVL-94GB"), _CARD_5),
    **dict.fromkeys(("V100-PCIe", "V100S-PCIe", "T4", "MI100"), Interconnect(
        node=8, intra_bytes_per_s=15.75 * GIGA, inter_bytes_per_s=12.5 * GIGA,
        source="PCI Express x16, generation 3", note=_NIC,
    )),
    "V100-SXM": _VOLTA,
    "B200": Interconnect(
        node=8, intra_bytes_per_s=900 * GIGA, inter_bytes_per_s=50 * GIGA,
        source=f"{_ML_ENGINEERING} {_BLACKWELL}; DGX B200: 8 x 400 Gbit/s",
    ),
    "B300": Interconnect(
        node=8, intra_bytes_per_s=900 * GIGA, inter_bytes_per_s=100 * GIGA,
        source=f"{_ML_ENGINEERING} {_BLACKWELL}; DGX B300: 8 x 800 Gbit/s",
    ),
    "GB200": Interconnect(
        node=72, intra_bytes_per_s=900 * GIGA, inter_bytes_per_s=50 * GIGA,
        source=f"{_ML_ENGINEERING} {_BLACKWELL}; a rack of 72 is one domain, one 400 Gbit/s adapter each",
    ),
    "GB300": Interconnect(
        node=72, intra_bytes_per_s=900 * GIGA, inter_bytes_per_s=100 * GIGA,
        source=f"{_ML_ENGINEERING} {_BLACKWELL}; a rack of 72 is one domain, one 800 Gbit/s adapter each",
    ),
    "MI210": Interconnect(
        node=8, intra_bytes_per_s=50 * GIGA, inter_bytes_per_s=12.5 * GIGA,
        source=f"{_ML_ENGINEERING} (one Infinity Fabric link each way)", note=_NIC,
    ),
    "MI250": _CDNA2,
    "MI250X": _CDNA2,
    "MI300X": _CDNA3,
    "MI325X": _CDNA3,
    "MI350X": _CDNA4,
    "MI355X": _CDNA4,
    "Gaudi2": Interconnect(
        node=8, intra_bytes_per_s=262.5 * GIGA, inter_bytes_per_s=37.5 * GIGA,
        source=f"{_ML_ENGINEERING} (24 x 100 Gbit/s Ethernet, 21 of them within the node)",
    ),
    "Gaudi3": Interconnect(
        node=8, intra_bytes_per_s=525 * GIGA, inter_bytes_per_s=75 * GIGA,
        source=f"{_ML_ENGINEERING} (24 x 200 Gbit/s Ethernet, 21 of them within the node)",
    ),
    "TPU-v3": Interconnect(
        node=1024, intra_bytes_per_s=140 * GIGA, inter_bytes_per_s=3 * GIGA, source=f"{_TPU}v3",
        note="four links of about 35 GB/s each way are assumed",
    ),
    "TPU-v4": Interconnect(
        node=4096, intra_bytes_per_s=150 * GIGA, inter_bytes_per_s=3 * GIGA, source=f"{_TPU}v4",
        note="six links of 25 GB/s each way are assumed",
    ),
    "TPU-v5e": Interconnect(
        node=256, intra_bytes_per_s=200 * GIGA, inter_bytes_per_s=3 * GIGA,
        source=f"{_TPU}v5e (400 GB/s both ways; pods of 256; 2 x 100 Gbit/s for a host of 8)",
    ),
    "TPU-v5p": Interconnect(
        node=6144, intra_bytes_per_s=600 * GIGA, inter_bytes_per_s=6.25 * GIGA,
        source=f"{_TPU}v5p (1200 GB/s both ways; jobs of up to 6144; 50 Gbit/s of network for each chip)",
    ),
    "TPU-v6e": Interconnect(
        node=256, intra_bytes_per_s=400 * GIGA, inter_bytes_per_s=12.5 * GIGA, source=f"{_TPU}v6e (800 GB/s both ways)",
        note="pods of 256; 100 Gbit/s of network for each chip is assumed",
    ),
    "TPU-v7x": Interconnect(
        node=9216, intra_bytes_per_s=600 * GIGA, inter_bytes_per_s=12.5 * GIGA,
        source=f"{_TPU}tpu7x (1200 GB/s both ways)", note="100 Gbit/s of network for each chip is assumed",
    ),
    "Trainium2": Interconnect(
        node=16, intra_bytes_per_s=512 * GIGA, inter_bytes_per_s=25 * GIGA,
        source=f"{_ML_ENGINEERING} (NeuronLink 3, 1024 GB/s both ways)", note=_ASSUMED,
    ),
}  # fmt: skip


def find_interconnect(chip: str) -> Interconnect | None:
    """The links of a chip, by its name in the table of chips; None where they are unknown. One die of a package of two
    has half of the package's bandwidth."""
    package = INTERCONNECTS.get(chip.removesuffix(" die"))
    if package is None or package is INTERCONNECTS.get(chip):
        return package
    return Interconnect(
        node=package.node * 2,
        intra_bytes_per_s=package.intra_bytes_per_s / 2,
        inter_bytes_per_s=package.inter_bytes_per_s / 2,
        source=package.source,
        note=f"half of a package's; {package.note}",
    )
