"""The memory below which training cannot go: weights, gradients and optimizer states of one unsharded replica.

Activations, temporary buffers and fragmentation come on top, so that a run may fail far above this floor.
Sources: Rajbhandari et al. 2020, "ZeRO", section 3.1, for AdamW's 16 bytes, here without a separate half-precision
copy of the weights, which autocast makes as it goes; Shazeer and Stern 2018, "Adafactor", section 3.
"""

from __future__ import annotations

# Weights are fp32 under autocast; gradients and optimizer states have the weights' own type.
_BYTES = {"fp32": 4, "bf16-autocast": 4, "bf16": 2}

# Values kept per trained parameter. AdamW: two moments. SGD: none without momentum. Adafactor: no first moment, and of
# the second the sums of rows and columns alone, under a thousandth of a value per parameter: 0 keeps this a floor.
_STATES = {"adamw": 2, "sgd": 0, "sgd-momentum": 1, "adafactor": 0}


def memory_floor_bytes(parameters: int, precision: str, optimizer: str, trainable: int | None = None) -> int:
    """Bytes of weights, gradients and optimizer states.

    parameters: all that are held, adapters included. trainable: how many of them are updated, None for all; the others
    have no gradient and no state (Hu et al. 2021, "LoRA", section 4.2).
    """
    updated = parameters if trainable is None else trainable
    if not 0 <= updated <= parameters:
        raise ValueError(f"{updated} of {parameters} parameters cannot be trainable")
    return _BYTES[precision] * (parameters + updated * (1 + _STATES[optimizer]))
