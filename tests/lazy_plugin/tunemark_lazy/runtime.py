"""Drivers of torch_xla that only start the queued work, and that do nothing."""

from __future__ import annotations

from typing import Any, Mapping, Optional

import torch

from tunemark_worker.contract import Assignment, Place


class XlaDoesNothing:
    """Without the moment at which a step ends, nothing is computed before a value is read."""

    is_synchronous = False

    def open(self, assignment: Assignment) -> Place:
        import torch_xla

        torch.set_num_threads(assignment.threads)
        self._xla = torch_xla
        return Place(device=str(torch_xla.device()), rank=0, ranks=1, data_rank=0, data_ranks=1)

    def synchronize(self) -> None:
        pass

    def peak_memory_bytes(self) -> Optional[int]:
        return None

    def facts(self) -> Mapping[str, Any]:
        return {}


class XlaOnlyStarts(XlaDoesNothing):
    """Steps are started one after another, and nobody waits for them."""

    def end_step(self) -> None:
        self._xla.sync()

    def synchronize(self) -> None:
        self._xla.sync()
