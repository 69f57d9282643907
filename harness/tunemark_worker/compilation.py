"""Compile the model with `torch.compile`: its decoder layers one by one, or its whole forward."""

from __future__ import annotations

from typing import Any, List, Tuple

import torch

from tunemark_worker.decoder import find_layers


def compile_model(module: torch.nn.Module, kind: str) -> None:
    """Compile in place. kind: "off", "regional": each layer, or "full": the whole forward. Compiling itself happens at
    the first call with each new shape. ValueError where there are no layers to compile."""
    if kind == "off":
        return
    if kind not in ("regional", "full"):
        raise ValueError("compile is 'off', 'regional' or 'full', not {!r}".format(kind))
    found: Any = find_layers(module) if kind == "regional" else [module]
    if found is None:
        raise ValueError("{} has no list of layers: use --compile full".format(type(module).__name__))
    targets: List[Any] = list(found)
    for each in targets:
        # The forward alone, so that the names of parameters and what hooks do around it stay as they are.
        each.forward = torch.compile(each.forward)


def count_compilations() -> Tuple[int, float]:
    """(programs that torch.compile has made in this process, seconds that it has spent on them)."""
    from torch._dynamo import utils  # only where something is compiled

    times: Any = utils.compilation_time_metrics
    seconds: Any = utils.calculate_time_spent()
    return len(times.get("_compile.compile_inner", ())), float(seconds.get("total_wall_time", 0.0))
