"""Show that no work was left on a device that says it has finished.

A value that depends on the last update is copied to the host, and after it one that depends on nothing. The first copy
waits for what was left. The second takes as long as copying takes, so the difference is the device's work alone.
"""

from __future__ import annotations

import torch

from tunemark_worker.gradient_norm import local_part

# The tensor at rest has as many elements as the weight, so that both are copied in the same way, up to 4 MB of fp32.
MAX_ELEMENTS_AT_REST = 2**20


class UpdateWitness:
    """An element of the weight that is updated last, and one of a tensor that is never written again.

    The tensor at rest is no second reading of the weight: a lazy device that did not work would compute the weight
    twice, and both readings would last equally long."""

    def __init__(self, module: torch.nn.Module) -> None:
        """module: as it is trained, of which this rank holds at least one element that is trained."""
        self._updated = [p for p in module.parameters() if p.requires_grad and local_part(p).numel()][-1]
        part = local_part(self._updated)
        shape = part.shape if part.numel() <= MAX_ELEMENTS_AT_REST else (MAX_ELEMENTS_AT_REST,)
        # Made on the host: a lazy device computes what is made on it anew at each reading.
        self._at_rest = torch.zeros(shape, dtype=part.dtype).to(part.device)

    def read_update(self) -> None:
        """Copy an element of the weight to the host."""
        _read_element(local_part(self._updated))

    def read_at_rest(self) -> None:
        """Copy an element of the tensor at rest to the host."""
        _read_element(self._at_rest)


def _read_element(tensor: torch.Tensor) -> float:
    return tensor.flatten()[0].item()
