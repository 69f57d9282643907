"""The strategy of one process, whose model stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

from tunemark_worker.contract import Assignment, Place

if TYPE_CHECKING:
    import torch


class NoStrategy:
    """One process, the model unchanged. Also a base for strategies that do part of their work elsewhere."""

    def __init__(self, assignment: Assignment) -> None:
        pass

    def prepare(self) -> None:
        pass

    def apply(self, model: torch.nn.Module, place: Place) -> torch.nn.Module:
        return model

    def selected(self) -> Optional[Mapping[str, Any]]:
        return {"strategy": "none"}
