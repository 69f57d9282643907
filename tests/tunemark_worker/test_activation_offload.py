"""Activations in host memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunemark_worker.activation_offload import HeldActivation, _to_device, _to_host, offload_activations


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(torch.nn.functional.silu(self.inner(x)))


class _Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([_Block(), _Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Copies(TorchDispatchMode):
    """The shapes of what is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.copy_.default:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@contextmanager
def _copies() -> Iterator[list[tuple[int, ...]]]:
    with _Copies() as mode:
        yield mode.shapes


def test_gradients_are_the_same_and_each_activation_is_copied_once() -> None:
    torch.manual_seed(0)
    plain, moved = _Decoder(), _Decoder()
    moved.load_state_dict(plain.state_dict())
    assert offload_activations(moved) == 2
    x = torch.randn(3, 16, 32)
    with _copies() as none:
        plain(x).square().sum().backward()
    assert not none
    with _copies() as copied:
        moved(x).square().sum().backward()
    # Of each layer: its input, what the activation function takes, and what it gives. No weight is among them.
    assert len(copied) == 6
    assert not any(shape in ((32, 64), (64, 32)) for shape in copied)
    for one, other in zip(plain.parameters(), moved.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=0.0, atol=0.0)


def test_weights_and_small_tensors_stay_where_they_are() -> None:
    weight, activation = torch.randn(32, 64), torch.randn(32, 64)
    own = frozenset([weight.untyped_storage().data_ptr()])
    assert _to_host(own, weight) is weight
    assert _to_host(own, weight.t()).data_ptr() == weight.data_ptr()  # type: ignore[union-attr]
    small = torch.randn(4)
    assert _to_host(own, small) is small
    held = _to_host(own, activation)
    assert isinstance(held, HeldActivation)
    assert held.values.data_ptr() != activation.data_ptr()
    torch.testing.assert_close(_to_device(held), activation)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no list of layers"):
        offload_activations(torch.nn.Linear(2, 2))
