"""Nodes and networks of cloud instances and machines by name, as their operators state them. Data.

Where the source is an address, it was read on 2026-11-30; the others are as commonly stated. Links are of one device in
one direction. A name is compared without case and punctuation, and a longer one is found by
its beginning: "p5.48xlarge" is p5.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tunemark.errors import BadData, UnknownName, did_you_mean


class Cluster(NamedTuple):
    """node: devices that the fast links connect. inter_gb_s: GB/s of one device between nodes. chips: beginnings of
    the names of the chips that it has."""

    name: str
    node: int
    inter_gb_s: float
    chips: tuple[str, ...]
    source: str


_AWS = "aws.amazon.com/ec2/instance-types, accelerated computing: EFA"
_NEURON = "https://awsdocs-neuron.readthedocs-hosted.com/en/latest/general/arch/neuron-hardware"
_GOOGLE = "cloud.google.com/compute/docs/gpus, network bandwidth of GPU machine types"
_AZURE = "learn.microsoft.com/azure/virtual-machines, GPU accelerated sizes"
_ORACLE = "docs.oracle.com/iaas, Compute shapes: RDMA cluster network"

CLUSTERS = (
    Cluster("p4d", 8, 6.25, ("A100",), f"{_AWS} of 400 Gbit/s for 8"),
    Cluster("p4de", 8, 6.25, ("A100",), f"{_AWS} of 400 Gbit/s for 8"),
    Cluster("p5", 8, 50.0, ("H100",), f"{_AWS} of 3,200 Gbit/s for 8"),
    Cluster("p5e", 8, 50.0, ("H200",), f"{_AWS} of 3,200 Gbit/s for 8"),
    Cluster("p5en", 8, 50.0, ("H200",), f"{_AWS} of 3,200 Gbit/s for 8"),
    Cluster("p6-b200", 8, 50.0, ("B200",), f"{_AWS} of 3,200 Gbit/s for 8"),
    Cluster("trn1", 16, 6.25, ("Trainium1",), f"{_NEURON}/trn1-arch.html: 800 Gbit/s for 16"),
    Cluster("trn1n", 16, 12.5, ("Trainium1",), f"{_NEURON}/trn1-arch.html: 1,600 Gbit/s for 16"),
    Cluster("trn2", 16, 25.0, ("Trainium2",), f"{_AWS} of 3,200 Gbit/s for 16"),
    Cluster("a2-highgpu", 8, 1.5625, ("A100",), f"{_GOOGLE}: 100 Gbit/s for 8"),
    Cluster("a2-ultragpu", 8, 1.5625, ("A100",), f"{_GOOGLE}: 100 Gbit/s for 8"),
    Cluster("a3-highgpu", 8, 12.5, ("H100",), f"{_GOOGLE}: 800 Gbit/s for 8"),
    Cluster("a3-megagpu", 8, 25.0, ("H100",), f"{_GOOGLE}: 1,600 Gbit/s for 8"),
    Cluster("a3-ultragpu", 8, 50.0, ("H200",), f"{_GOOGLE}: 3,200 Gbit/s for 8"),
    Cluster("a3", 8, 12.5, ("H100",), f"{_GOOGLE}: 800 Gbit/s for 8 (a3-highgpu, the first of its line)"),
    Cluster("a4", 8, 50.0, ("B200",), f"{_GOOGLE}: 3,200 Gbit/s for 8"),
    Cluster("a4x", 72, 50.0, ("GB200",), f"{_GOOGLE}: 1,600 Gbit/s for 4; 72 in one NVLink domain"),
    Cluster("ND A100 v4", 8, 25.0, ("A100",), f"{_AZURE}: 8 x 200 Gbit/s InfiniBand"),
    Cluster("ND H100 v5", 8, 50.0, ("H100",), f"{_AZURE}: 8 x 400 Gbit/s InfiniBand"),
    Cluster("ND H200 v5", 8, 50.0, ("H200",), f"{_AZURE}: 8 x 400 Gbit/s InfiniBand"),
    Cluster("ND MI300X v5", 8, 50.0, ("MI300X",), f"{_AZURE}: 8 x 400 Gbit/s InfiniBand"),
    Cluster("ND GB200 v6", 72, 50.0, ("GB200",), f"{_AZURE}: 4 x 400 Gbit/s for 4; 72 in one NVLink domain"),
    Cluster("BM.GPU4", 8, 25.0, ("A100",), f"{_ORACLE} of 1,600 Gbit/s for 8"),
    Cluster("BM.GPU.A100", 8, 25.0, ("A100",), f"{_ORACLE} of 1,600 Gbit/s for 8"),
    Cluster("BM.GPU.H100", 8, 50.0, ("H100",), f"{_ORACLE} of 3,200 Gbit/s for 8"),
    Cluster("DGX A100", 8, 25.0, ("A100",), "NVIDIA, DGX A100 data sheet: 8 x 200 Gbit/s"),
    Cluster("DGX H100", 8, 50.0, ("H100",), "NVIDIA, DGX H100 data sheet: 8 x 400 Gbit/s"),
    Cluster("Selene", 8, 25.0, ("A100",), "Narayanan et al. 2021, section 5: 8 x 200 Gbit/s HDR for 8"),
    Cluster("Eos", 8, 50.0, ("H100",), "NVIDIA: DGX H100, 8 x 400 Gbit/s NDR"),
    Cluster(
        "JUPITER", 4, 25.0, ("GH200",),
        "https://apps.fz-juelich.de/jsc/hps/jupiter/configuration.html: 4 x NDR200 for 4",
    ),
    Cluster("JUWELS Booster", 4, 25.0, ("A100",), "Jülich Supercomputing Centre: 4 x 200 Gbit/s for 4"),
    Cluster("Alps", 4, 25.0, ("GH200",), "CSCS: 4 x 200 Gbit/s Slingshot for 4"),
    Cluster("Isambard-AI", 4, 25.0, ("GH200",), "Bristol Centre for Supercomputing: 4 x 200 Gbit/s Slingshot for 4"),
    Cluster("Leonardo", 4, 12.5, ("A100",), "CINECA, Leonardo Booster: 2 x dual-port HDR100 for 4"),
    Cluster("Jean Zay", 8, 6.25, ("A100",), "BigScience, tr11-176B: 4 x 100 Gbit/s Omni-Path for 8"),
    Cluster("LUMI", 4, 25.0, ("MI250",), "CSC, LUMI-G: 4 x 200 Gbit/s Slingshot for 4 packages"),
    Cluster("Frontier", 4, 25.0, ("MI250",), "OLCF: 4 x 200 Gbit/s Slingshot for 4 packages"),
    Cluster("Perlmutter", 4, 25.0, ("A100",), "NERSC: 4 x 200 Gbit/s Slingshot for 4"),
    Cluster("Polaris", 4, 12.5, ("A100",), "ALCF: 2 x 200 Gbit/s Slingshot for 4"),
    Cluster("MareNostrum 5", 4, 25.0, ("H100",), "BSC, accelerated partition: 4 x 200 Gbit/s for 4"),
)  # fmt: skip


def find_cluster(name: str, chip: str) -> Cluster:
    """The cluster of that name; `UnknownName` with a suggestion where there is none, `BadData` where it does not have
    the chip."""
    key = _plain(name)
    found = [each for each in CLUSTERS if key.startswith(_plain(each.name))]
    if not key or not found:
        raise UnknownName(
            what=f"no cluster named {name!r}",
            why="node and network are known of few",
            next=did_you_mean(name, [each.name for each in CLUSTERS]),
        )
    cluster = max(found, key=lambda each: len(_plain(each.name)))
    if not chip.startswith(cluster.chips):
        raise BadData(
            what=f"{cluster.name} has no {chip}",
            why=f"its chips: {', '.join(cluster.chips)}",
            next="node_devices and inter_gb_s say what another machine has",
        )
    return cluster


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
