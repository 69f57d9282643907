"""The memory below which training cannot go: weights, gradients and optimizer states of one unsharded replica.

Activations, temporary buffers and fragmentation come on top, so that a run may fail far above this floor.
Source: Rajbhandari et al. 2020, "ZeRO", section 3.1, for AdamW's 16 bytes; here without a separate half-precision
copy of the weights, which autocast makes as it goes.
"""

from __future__ import annotations

# Weights are fp32 under autocast; gradients and optimizer states have the weights' own type.
_BYTES = {"fp32": 4, "bf16-autocast": 4, "bf16": 2}

# Values kept per parameter: two moments, or nothing without momentum.
_STATES = {"adamw": 2, "sgd": 0}


def memory_floor_bytes(parameters: int, precision: str, optimizer: str) -> int:
    """Bytes of weights, gradients and optimizer states, all parameters trained."""
    return parameters * _BYTES[precision] * (1 + 1 + _STATES[optimizer])
