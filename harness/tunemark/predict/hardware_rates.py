"""Time of collectives and messages on a device's links, for the cost model."""

from __future__ import annotations

from tunemark.plugin.hardware import DeviceFacts


def collective_seconds(
    device: DeviceFacts, *, size: int, stride: int, payload_bytes: float, kind: str = "all_gather", parts: float = 1.0
) -> float:
    """Seconds of a collective over `size` ranks whose numbers are `stride` apart, sent in `parts` one after another.

    payload_bytes: what every rank holds after an all-gather, or before a reduce-scatter or an all-reduce. Ring:
    (size - 1) / size of the payload passes each link once, twice for an all-reduce (Thakur, Rabenseifner and Gropp
    2005, section 4). Latency grows with the logarithm in an all-reduce, which has trees, and else by the ring's links,
    of which one in a node is the network's. Between nodes, the group has the network links of its own ranks in a node
    and no others (NCCL's rings and channels).
    """
    if size <= 1:
        return 0.0
    here = max(1, min(size, device.node // stride if stride < device.node else 1))
    passes = 2.0 if kind == "all_reduce" else 1.0
    if here >= size:
        rate, latency = device.intra_bytes_per_s * device.efficiency.intra, device.intra_s
        hops = latency * (size - 1).bit_length()
    else:
        rate = min(
            device.intra_bytes_per_s * device.efficiency.intra,
            here * device.inter_bytes_per_s * device.efficiency.inter,
        )
        hops = device.inter_s * (size - 1).bit_length()
        if kind != "all_reduce":
            nodes = -(-size // here)
            hops = max(hops, device.ring_s * nodes)
    return passes * (payload_bytes * (size - 1) / size / rate + parts * hops)


def exchange_seconds(device: DeviceFacts, *, size: int, stride: int, token_bytes: float, used: int) -> float:
    """Seconds in which every rank sends each of its tokens to the ranks of `used` experts out of `size` ranks.

    token_bytes: of all tokens of a rank, once. A token goes once to a rank, and once to another node, which passes it
    on, however many of its experts are there (DeepSeek-AI 2024, "DeepSeek-V3", section 3.2.2).
    """
    if size <= 1:
        return 0.0
    here = max(1, min(size, device.node // stride if stride < device.node else 1))
    nodes = max(1, size // here)

    def reached(places: int) -> float:
        return places * (1.0 - (1.0 - 1.0 / places) ** used)

    near = token_bytes * reached(size) * (here - 1) / here
    far = token_bytes * reached(nodes) * (nodes - 1) / nodes
    latency = device.intra_s if nodes == 1 else device.inter_s
    return (
        max(
            far / (device.inter_bytes_per_s * device.efficiency.inter),
            near / (device.intra_bytes_per_s * device.efficiency.intra),
        )
        + latency * size.bit_length()
    )


def message_seconds(device: DeviceFacts, *, stride: int, payload_bytes: float) -> float:
    """Seconds of one message to the rank whose number is higher by `stride`."""
    e = device.efficiency
    if stride < device.node:
        return payload_bytes / (device.intra_bytes_per_s * e.intra) + device.intra_s
    return payload_bytes / (device.inter_bytes_per_s * e.inter) + device.inter_s
