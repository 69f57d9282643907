"""A lower bound on training memory: weights, gradients and optimizer states of one unsharded replica.

Activations, temporary buffers and fragmentation come on top, so that a run may fail far above this floor.
Sources: Rajbhandari et al. 2020, "ZeRO", section 3.1, for AdamW's 16 bytes, here without a separate half-precision
copy of the weights, which autocast casts on the fly; Shazeer and Stern 2018, "Adafactor", section 3; Dettmers et al.
2022, "8-bit Optimizers via Block-wise Quantization", section 2; Dettmers et al. 2023, "QLoRA", section 3.
"""

from __future__ import annotations

from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import FORMAT_BYTES, PRECISIONS

# A weight in NF4: half a byte; for each block of 64 a scale of a byte, and for 256 of these one in float32, which is
# double quantization. Without the half byte that is the 0.127 bits of the paper.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def memory_floor_bytes(
    parameters: int,
    precision: str,
    optimizer: str,
    trainable: int | None = None,
    quantized: int = 0,
    *,
    keeps_gradients: bool = True,
) -> int:
    """Bytes of weights, gradients and optimizer states.

    parameters: all, adapters included. trainable: how many of them are trained, None for all; the others have no
    gradient and no state (Hu et al. 2021, "LoRA", section 4.2). quantized: how many of the others are in NF4.
    keeps_gradients: all exist together, unless weights are updated in the backward pass.
    """
    trained = parameters if trainable is None else trainable
    if not 0 <= trained <= parameters:
        raise ValueError(f"{trained} of {parameters} parameters cannot be trainable")
    if not 0 <= quantized <= parameters - trained:
        raise ValueError(f"{quantized} of {parameters - trained} frozen parameters cannot be quantized")
    # Gradients have the weights' format.
    width = FORMAT_BYTES[PRECISIONS[precision].weights]
    weights = width * (parameters - quantized) + round(NF4_BYTES * quantized)
    return (
        weights + width * trained * keeps_gradients + round(trained * OPTIMIZERS[optimizer].bytes_per_parameter(width))
    )
