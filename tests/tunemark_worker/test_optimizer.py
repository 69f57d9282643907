"""Optimizers of other packages: how they are called, and what bitsandbytes' does where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tunemark_worker.optimizer import OPTIMIZERS, make_optimizer

# The documented interface: an optimizer of torch's kind, with torch's defaults.
_FAKE = """
import torch

class AdamW8bit(torch.optim.AdamW):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
"""


@pytest.fixture
def fake_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [each for each in sys.modules if each.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "bitsandbytes"
    folder.mkdir()
    (folder / "__init__.py").write_text("__version__ = '0.43.0'")
    (folder / "optim.py").write_text(_FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [each for each in sys.modules if each.partition(".")[0] == "bitsandbytes"]:
        del sys.modules[name]


def test_an_optimizer_of_another_package_is_called_as_it_documents(fake_bitsandbytes: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    made = make_optimizer("adamw-8bit", [weight], 0.25)
    assert type(made).__module__ == "bitsandbytes.optim"
    assert [(group["lr"], group["params"]) for group in made.param_groups] == [(0.25, [weight])]
    with pytest.raises(ValueError, match="has no implementation 'fused': it is bitsandbytes's"):
        make_optimizer("adamw-8bit", [weight], 0.25, "fused")
    (fake_bitsandbytes / "optim.py").write_text("")
    del sys.modules["bitsandbytes.optim"]
    with pytest.raises(ValueError, match=r"needs bitsandbytes 0\.44 or newer, this is 0\.43\.0"):
        make_optimizer("adamw-8bit", [weight], 0.25)


def test_a_package_that_is_not_there_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="needs bitsandbytes: python -m pip install bitsandbytes"):
        make_optimizer("adamw-8bit", [torch.nn.Parameter(torch.ones(3))], 0.25)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_update_nearly_as_all_bits_and_take_as_many_bytes_as_planned(dtype: torch.dtype) -> None:
    pytest.importorskip("bitsandbytes", minversion="0.50", reason="adamw-8bit is bitsandbytes'")
    torch.manual_seed(0)
    start = torch.randn(256, 128)
    gradients = [torch.randn(256, 128) * scale for scale in (1.0, 0.5, 2.0)]
    found = []
    for name in ("adamw", "adamw-8bit"):
        weight = torch.nn.Parameter(start.to(dtype if name != "adamw" else torch.float32, copy=True))
        made = make_optimizer(name, [weight], 0.1)
        for gradient in gradients:
            weight.grad = gradient.to(weight.dtype)
            made.step()
        found.append(weight.detach().float() - start)
    # Of updates of about 0.2, and in bf16 of rounding weights of about 1.
    assert (found[1] - found[0]).square().mean().sqrt() < 0.05 * found[0].square().mean().sqrt()
    states = [each for each in made.state[weight].values() if isinstance(each, torch.Tensor)]
    tables = [each for each in states if each.numel() == 256]
    taken = sum(each.numel() * each.element_size() for each in states) - sum(4 * each.numel() for each in tables)
    assert taken == OPTIMIZERS["adamw-8bit"].bytes_per_parameter(4) * start.numel()
