"""The facts of hardware that the cost model reads: one device, its links, and the efficiency reached on each.

Rates are those of data sheets; the efficiencies that are defaults here are assumed, neither fitted nor measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """Shares of data-sheet rates that are reached, and costs that no data sheet states.

    gemm: share of the peak by precision, for large matrices. gemm_tile: start and end of a product in steps of k: it
    takes 1 + gemm_tile / k of its ideal time. attention: share of the 16-bit peak in fused attention of long sequences,
    counting causal FLOPs only; attention_portable: factor on it for kernels written for an earlier class. memory: share
    of the bandwidth in elementwise work. intra, inter: share of the links within and between nodes. host_s: seconds of
    the launching thread per operation; host_order: how far it runs ahead of the kernels, as the order of the p-norm
    that joins both times, 1 where it does not (a CPU does both). tensor_hidden, data_hidden: largest share of a
    collective that overlap hides. straggle: share added to a step for every doubling of nodes. step_s: seconds once a
    step. cast: time of casts to 8 or 4 bits over that of their traffic. optimizer: the same for an optimizer step.
    dispatch_bytes: moved in a forward pass per value of a token that is routed to an expert; expert_hidden: share of
    such tokens' journeys that overlap hides. eager_launches: operations of transformers' modules over those of plain
    torch modules. hook_launches: operations for one parameter when a sharding engine in Python handles it.
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
    dispatch_bytes: float = 8.0
    expert_hidden: float = 0.3
    eager_launches: float = 1.2
    hook_launches: float = 12.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """One device (what a rank occupies) and its links.

    kind: chip class whose efficiency is used. peak_flops: FLOP/s, dense, by precision. node: devices joined by the fast
    links. intra_bytes_per_s, inter_bytes_per_s: of one device in one direction, within and between nodes. units:
    multiprocessors that share the tiles of a matrix product, 0 if unknown. host_bytes_per_s: to host memory, and the
    same back, where faster than a bus, else 0. intra_s, inter_s: latency of one message; ring_s: of a ring's way
    through one node to the next. residual, memory_residual: standard deviation of the logarithm of predicted time and
    memory. assumptions: sentences on what no source states.
    bus_bytes_per_s: to host memory in any case. is_published: figures are those of data sheets and of fits to published
    rows, and bounds depend on what is known. is_network_known: its links between nodes are a machine's own, not the
    vendor's reference. is_chip_assumed: no vendor's page confirms the chip's figures. learned_residual: standard
    deviation of the logarithm of the time where constants were learned from runs, else None.
    workspace_bytes: memory that the runtime takes besides tensors. shares_memory: all ranks use one memory, so that a
    larger size has no more of it. heap_share: in host memory, what the heap takes between its blocks, as a share of
    these; 0 where tensors have an allocator of their own. keeps_blocks: no block of it goes back to the kernel.
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
    ring_s: float = 10e-6
    efficiency: Efficiency = Efficiency()
    residual: float = 0.2
    memory_residual: float = 0.1
    source: str = ""
    assumptions: tuple[str, ...] = ()
    workspace_bytes: float = 0.4e9
    shares_memory: bool = False
    bus_bytes_per_s: float = 25e9
    is_published: bool = False
    is_network_known: bool = False
    is_chip_assumed: bool = False
    learned_residual: float | None = None
    heap_share: float = 0.0
    keeps_blocks: bool = False
