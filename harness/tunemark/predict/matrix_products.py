"""Seconds of matrix products on a device: arithmetic by tiles, memory traffic, casts to few bits.

A product takes the longer of its arithmetic and its traffic (Williams et al. 2009, "Roofline").
"""

from __future__ import annotations

import math

from tunemark.plugin.hardware import DeviceFacts

# Recipes that multiply in 8 or 4 bits.
LOW_PRECISIONS = frozenset(("fp8", "mxfp8", "fp8-rowwise", "nvfp4"))

# Chip classes that multiply 8-bit operands in any memory layout (Transformer Engine, is_non_tn_fp8_gemm_supported).
_ANY_OPERAND_LAYOUT = frozenset(("blackwell",))


def matmul_seconds(device: DeviceFacts, precision: str, m: float, k: float, n: float, count: float = 1.0) -> float:
    """Seconds of a matrix product of m x k by k x n, or of `count` such products that run side by side."""
    e = device.efficiency
    low = precision in LOW_PRECISIONS
    shape = (1.0 + e.gemm_tile / k) * _waves(m, n, device.units, count)
    arithmetic = (
        2.0 * m * k * n * shape / (device.peak_flops[find_peak_name(precision)] * _efficiency(e.gemm, precision))
    )
    width = 0.5625 if precision == "nvfp4" else 1.0 if low else 4.0 if precision in ("fp32", "tf32") else 2.0
    traffic = (m * k + k * n) * width + m * n * 2.0
    rate = device.bandwidth_bytes_per_s * e.memory
    # Operands come in 16 bits and are scaled and rounded first: read 2 bytes, write a copy and a transposed copy for
    # the backward pass; only one copy where the chip takes 8 bits in any layout and one scale serves both.
    copies = 1.0 if precision == "fp8" and device.kind in _ANY_OPERAND_LAYOUT else 2.0
    cast = e.cast * (m * k) * (2.0 + copies * width) / rate if low else 0.0
    return float(count * (max(arithmetic, traffic / rate) + cast))


# Output tiles (rows, columns) that one multiprocessor computes, and their speed relative to the largest.
_TILES = ((128, 256, 1.0), (256, 128, 1.0), (128, 128, 0.95), (128, 64, 0.8), (64, 64, 0.6))


def _waves(m: float, n: float, units: int, count: float = 1.0) -> float:
    """Wave quantisation: time with whole tiles dealt to `units` multiprocessors over time with all always busy. count:
    of such products, whose tiles are dealt together."""
    if not units:
        return 1.0
    return min(
        math.ceil(count * math.ceil(m / rows) * math.ceil(n / columns) / units)
        * (units * rows * columns / (count * m * n * speed))
        for rows, columns, speed in _TILES
    )


def _efficiency(shares: object, precision: str) -> float:
    table: dict[str, float] = shares  # type: ignore[assignment]  # a Mapping of floats
    if precision in table:
        return table[precision]
    return table.get(find_peak_name(precision), table.get("bf16", 0.6))


def find_peak_name(precision: str) -> str:
    return {"mxfp8": "fp8", "fp8-rowwise": "fp8", "nvfp4": "fp4"}.get(precision, precision)
