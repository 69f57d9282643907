"""Matrices of 4 bits: which modules are replaced, and how bitsandbytes is called, against its documented interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunemark_worker.quantized_base import count_values, quantize_matrices

# A weight is quantized when it is first moved to a device, and then knows its shape by its state.
_FAKE = """
import types
import torch

class Params4bit(torch.nn.Parameter):
    def __new__(cls, data, requires_grad=False, compress_statistics=True, quant_type="fp4", module=None):
        self = torch.Tensor._make_subclass(cls, data, requires_grad)
        self.compress_statistics, self.quant_type, self.quant_state = compress_statistics, quant_type, None
        return self

    def to(self, device):
        self.quant_state = types.SimpleNamespace(shape=self.shape, whole=self.data.clone(), device=device)
        self.data = torch.zeros(self.numel() // 2, 1, dtype=torch.uint8)
        return self

class Linear4bit(torch.nn.Linear):
    def __init__(self, inputs, outputs, bias=True, compute_dtype=None, compress_statistics=True, quant_type="fp4",
                 device=None):
        super().__init__(inputs, outputs, bias, device)
        self.compute_dtype, self.support_avx512bf16_for_cpu = compute_dtype, True

    def forward(self, x):
        whole = self.weight.quant_state.whole.to(self.compute_dtype)
        return torch.nn.functional.linear(x.to(self.compute_dtype), whole, self.bias).to(x.dtype)
"""


@pytest.fixture
def fake_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in [each for each in sys.modules if each.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "bitsandbytes"
    folder.mkdir()
    (folder / "__init__.py").write_text("from bitsandbytes import nn")
    (folder / "nn.py").write_text(_FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    import bitsandbytes

    yield bitsandbytes
    for name in [each for each in sys.modules if each.partition(".")[0] == "bitsandbytes"]:
        del sys.modules[name]


class Conv1D(torch.nn.Module):
    """As GPT-2's: the matrix is stored transposed."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(inputs, outputs))
        self.bias = torch.nn.Parameter(torch.randn(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class _Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.idle = torch.nn.Linear(4, 6, bias=False), Conv1D(4, 6), torch.nn.Linear(4, 4)
        self.register_buffer("angles", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x) + 0 * self.angles.sum())  # type: ignore[no-any-return]


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([_Layer(), _Layer()])
        self.head = torch.nn.Linear(4, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def test_the_matrices_of_layers_become_4_bits_and_nothing_else(fake_bitsandbytes: Any) -> None:
    torch.manual_seed(0)
    module, x = _Model(), torch.randn(3, 4)
    before, count = module(x), sum(p.numel() for p in module.parameters())
    quantize_matrices(module, ["up", "down", "idle"], ("0.idle",), torch.float32, "cpu")
    replaced = {n: each for n, each in module.named_modules() if isinstance(each, fake_bitsandbytes.nn.Linear4bit)}
    # The first layer never calls one of them.
    assert set(replaced) == {f"layers.{each}" for each in ("0.up", "0.down", "1.up", "1.down", "1.idle")}
    for each in replaced.values():
        assert (each.weight.quant_type, each.weight.compress_statistics) == ("nf4", True)
        assert each.weight.quant_state.device == "cpu"
        assert each.compute_dtype == torch.float32
        assert not each.support_avx512bf16_for_cpu
    torch.testing.assert_close(module(x), before)
    # Two weights are one stored byte.
    assert sum(p.numel() for p in module.parameters()) == count - (2 * (24 + 24) + 16) // 2
    assert count_values(module.parameters()) == count
