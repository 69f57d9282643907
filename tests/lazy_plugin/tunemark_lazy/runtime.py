"""Drivers of torch_xla and torch_nntile that wait, that only start the queued work, and that do nothing."""

from __future__ import annotations

from typing import Any, Mapping, Optional

import torch

from tunemark_worker.contract import Assignment, Place


class Lazy:
    """What all of them share."""

    is_synchronous = False

    def peak_memory_bytes(self) -> Optional[int]:
        return None

    def facts(self) -> Mapping[str, Any]:
        return {}


class XlaDoesNothing(Lazy):
    """Without the moment at which a step ends, nothing is computed before a value is read."""

    def open(self, assignment: Assignment) -> Place:
        import torch_xla

        torch.set_num_threads(assignment.threads)
        self._xla = torch_xla
        return Place(device=str(torch_xla.device()), rank=0, ranks=1, data_rank=0, data_ranks=1)

    def synchronize(self) -> None:
        pass


class XlaOnlyStarts(XlaDoesNothing):
    """Steps are started one after another, and nobody waits for them."""

    def end_step(self) -> None:
        self._xla.sync()

    def synchronize(self) -> None:
        self._xla.sync()


class NntileDoesNothing(Lazy):
    """The graph of a whole window is pending when a value is read."""

    def open(self, assignment: Assignment) -> Place:
        import torch_nntile

        torch.set_num_threads(assignment.threads)
        # It has no operator for each that an update needs, and computes the others on the host.
        torch_nntile.init_context(cpu_fallback=True)
        self._nntile = torch_nntile
        return Place(device="nntile", rank=0, ranks=1, data_rank=0, data_ranks=1)

    def synchronize(self) -> None:
        pass


class NntileOnlyStarts(NntileDoesNothing):
    """Steps are started, and nobody waits for them."""

    def end_step(self) -> None:
        self._nntile.execute()

    def synchronize(self) -> None:
        self._nntile.execute()


class Nntile(NntileOnlyStarts):
    """The driver that waits."""

    def synchronize(self) -> None:
        self._nntile.execute()
        self._nntile.wait()
