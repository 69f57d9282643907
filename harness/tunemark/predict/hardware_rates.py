"""Time of collectives and messages on a device's links, for the cost model."""

from __future__ import annotations

from tunemark.plugin.hardware import DeviceFacts


def collective_seconds(
    device: DeviceFacts, *, size: int, stride: int, payload_bytes: float, kind: str = "all_gather"
) -> float:
    """Seconds of one collective over `size` ranks whose numbers are `stride` apart.

    payload_bytes: what every rank holds after an all-gather, or before a reduce-scatter or an all-reduce. Ring:
    (size - 1) / size of the payload passes each link once, twice for an all-reduce (Thakur, Rabenseifner and Gropp
    2005, section 4); latency grows with the logarithm, as in trees. Between nodes, the group has the network links of
    its own ranks in a node and no others (NCCL's rings and channels).
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
        # Each rank keeps 1/size; what leaves the node goes by the device's own link.
        own = payload_bytes * (size - here) / size / (device.inter_bytes_per_s * device.efficiency.inter)
        near = payload_bytes * (here - 1) / size / (device.intra_bytes_per_s * device.efficiency.intra)
        return max(own, near) + latency * size.bit_length()
    return passes * (payload_bytes * (size - 1) / size / rate + latency * (size - 1).bit_length())


def message_seconds(device: DeviceFacts, *, stride: int, payload_bytes: float) -> float:
    """Seconds of one message to the rank whose number is higher by `stride`."""
    e = device.efficiency
    if stride < device.node:
        return payload_bytes / (device.intra_bytes_per_s * e.intra) + device.intra_s
    return payload_bytes / (device.inter_bytes_per_s * e.inter) + device.inter_s
