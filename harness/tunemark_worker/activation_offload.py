"""Activations in host memory: what a layer keeps for its backward pass waits there, as torch's `save_on_cpu` has it.

Unlike `save_on_cpu`, weights stay where they are: they are on the device anyway. Copies are queued on the stream that
computes, so they are not hidden behind it. Not run on hardware.
"""

from __future__ import annotations

import functools
from typing import Any, FrozenSet, NamedTuple, Union

import torch

from tunemark_worker.decoder import find_layers

# Smaller tensors cost more to copy than they occupy: scales, counters.
_SMALLEST_BYTES = 1024


class HeldActivation(NamedTuple):
    """A tensor in host memory, and the device that it came from."""

    values: torch.Tensor
    device: torch.device


def offload_activations(module: torch.nn.Module) -> int:
    """Keep the activations of each layer in host memory between its passes, and return how many layers there are;
    ValueError if the model has no list of layers."""
    layers = find_layers(module)
    if layers is None:
        raise ValueError("activations are kept by layers, and {} has no list of layers".format(type(module).__name__))
    for layer in layers:
        layer.forward = functools.partial(_run_offloaded, layer.forward, layer)
    return len(layers)


def _run_offloaded(forward: Any, layer: torch.nn.Module, *arguments: Any, **named: Any) -> Any:
    """One forward pass, whose saved tensors wait in host memory, weights excepted."""
    # In each pass: what wraps the model may have given it other storages since.
    own = frozenset(_place(each) for each in (*layer.parameters(), *layer.buffers()))
    with torch.autograd.graph.saved_tensors_hooks(functools.partial(_to_host, own), _to_device):
        return forward(*arguments, **named)


def _to_host(own: FrozenSet[int], tensor: torch.Tensor) -> Union[torch.Tensor, HeldActivation]:
    if _place(tensor) in own or tensor.numel() * tensor.element_size() < _SMALLEST_BYTES:
        return tensor
    is_pinned = tensor.device.type == "cuda"
    values = torch.empty(tensor.shape, dtype=tensor.dtype, layout=tensor.layout, device="cpu", pin_memory=is_pinned)
    values.copy_(tensor, non_blocking=is_pinned)
    return HeldActivation(values, tensor.device)


def _to_device(held: Union[torch.Tensor, HeldActivation]) -> torch.Tensor:
    if isinstance(held, torch.Tensor):
        return held
    return held.values.to(held.device, non_blocking=held.values.is_pinned())


def _place(tensor: torch.Tensor) -> int:
    """Where a tensor's memory begins, the same for its views; its id where it has no storage of its own."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (AttributeError, NotImplementedError, RuntimeError):
        return id(tensor)
