"""The machine as the cost model sees it: rates of one device, the network between devices, and what share of each is
reached. Rates are those of data sheets; the shares that stand here as
defaults are assumed, neither fitted nor measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """Shares of data-sheet rates that are reached, and costs that no data sheet states.

    gemm: by precision, of large matrices. gemm_tile: tokens or columns that a matrix loses at each edge: a product of
    m x k x n takes 1 + tile (1/m + 1/k + 1/n) of its ideal time. attention: share of the 16-bit peak in fused
    attention of long sequences, causal work alone counted; attention_portable: of that, what kernels reach that were
    written for an earlier class. memory: of the bandwidth, in elementwise work.
    intra, inter: of the links. host_s: of the launching thread per operation. tensor_hidden, data_hidden: share of a
    collective that overlapping hides at most. straggle: added to a step for every doubling of nodes.
    host_order: how far that thread runs ahead of the kernels: order of the norm that joins both, 1 where it does not (a
    CPU, which is both). step_s: once a step. optimizer: times that an update takes what its bytes would.
    """

    gemm: Mapping[str, float] = field(default_factory=dict)
    gemm_tile: float = 64.0
    attention: float = 0.45
    attention_portable: float = 1.0
    memory: float = 0.75
    intra: float = 0.7
    inter: float = 0.7
    host_s: float = 30e-6
    host_order: float = 4.0
    tensor_hidden: float = 0.6
    data_hidden: float = 0.85
    straggle: float = 0.01
    step_s: float = 3e-3
    cast: float = 1.0
    optimizer: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """One device (what a rank occupies) and its neighbours.

    peak_flops: dense, by precision. node: devices that the fast links join. intra_bytes_per_s, inter_bytes_per_s: of
    one device, one direction. units: to which tiles of a matrix product are dealt, 0 where unknown. host_bytes_per_s:
    to the processor's memory and as much back, where more than a bus joins it, else 0. intra_s, inter_s: latency of one
    message. kind: class whose fitted shares are used. residual, memory_residual: of the logarithm of a prediction, one
    standard deviation. assumptions: sentences on what no source states.
    """

    name: str
    kind: str
    peak_flops: Mapping[str, float]
    memory_bytes: float | None
    bandwidth_bytes_per_s: float
    node: int
    intra_bytes_per_s: float
    inter_bytes_per_s: float
    units: int = 0
    host_bytes_per_s: float = 0.0
    intra_s: float = 5e-6
    inter_s: float = 15e-6
    efficiency: Efficiency = Efficiency()
    residual: float = 0.2
    memory_residual: float = 0.1
    source: str = ""
    assumptions: tuple[str, ...] = ()


def group_seconds(
    device: DeviceFacts, *, size: int, stride: int, payload_bytes: float, kind: str = "all_gather"
) -> float:
    """Seconds of one collective over `size` ranks that lie `stride` apart.

    payload_bytes: what every rank holds after an all-gather, or before a reduce-scatter or an all-reduce. Ring:
    (size - 1) / size of the payload passes each link once, twice for an all-reduce (Thakur, Rabenseifner and Gropp
    2005, section 4); latency grows with the logarithm, as in trees. Between nodes the group's ranks of one node share
    their own links to the network, and no more (NCCL's rings and channels).
    """
    if size <= 1:
        return 0.0
    here = max(1, min(size, device.node // stride if stride < device.node else 1))
    passes = 2.0 if kind == "all_reduce" else 1.0
    if here >= size:
        rate, latency = device.intra_bytes_per_s * device.efficiency.intra, device.intra_s
    else:
        rate = min(
            device.intra_bytes_per_s * device.efficiency.intra,
            here * device.inter_bytes_per_s * device.efficiency.inter,
        )
        latency = device.inter_s
    if kind == "all_to_all":
        # Each rank keeps 1/size, and of the rest what leaves the node goes by the device's own link.
        own = payload_bytes * (size - here) / size / (device.inter_bytes_per_s * device.efficiency.inter)
        near = payload_bytes * (here - 1) / size / (device.intra_bytes_per_s * device.efficiency.intra)
        return max(own, near) + latency * size.bit_length()
    return passes * (payload_bytes * (size - 1) / size / rate + latency * (size - 1).bit_length())


def message_seconds(device: DeviceFacts, *, stride: int, payload_bytes: float) -> float:
    """Seconds of one message to the rank `stride` further on."""
    e = device.efficiency
    if stride < device.node:
        return payload_bytes / (device.intra_bytes_per_s * e.intra) + device.intra_s
    return payload_bytes / (device.inter_bytes_per_s * e.inter) + device.inter_s
