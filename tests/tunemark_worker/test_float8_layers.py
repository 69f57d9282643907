"""Products in 8-bit floats: which modules are converted, and how torchao is called, by its documented interface."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tunemark_worker.activation_checkpointing import checkpoint_layers
from tunemark_worker.float8_layers import convert_layers

# Linear modules for which the filter is true are swapped in place for a subclass with the same weight.
_FAKE = """
import dataclasses
import torch

class Float8Linear(torch.nn.Linear):
    pass

@dataclasses.dataclass(frozen=True)
class Float8LinearConfig:
    recipe: str = ""
    emulate: bool = False

    @staticmethod
    def from_recipe_name(name):
        return Float8LinearConfig(recipe=name)

def convert_to_float8_training(module, *, module_filter_fn=None, config=None):
    for path, each in list(module.named_modules()):
        if isinstance(each, torch.nn.Linear) and module_filter_fn(each, path):
            made = Float8Linear(each.in_features, each.out_features, each.bias is not None)
            made.weight, made.bias, made.config = each.weight, each.bias, config
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, made)
    return module
"""


def _forget() -> dict[str, object]:
    """Take torchao's modules out of those imported, and return them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "torchao"}


@pytest.fixture
def fake_torchao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    own = _forget()
    folder = tmp_path / "torchao"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "float8.py").write_text(_FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "float8.py"
    _forget()
    sys.modules.update(own)  # type: ignore[arg-type]  # they were modules


class _Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(32, 64, bias=False), torch.nn.Linear(64, 32)
        self.norm = torch.nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.nn.functional.silu(self.up(self.norm(x))))  # type: ignore[no-any-return]


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([_Layer(), _Layer()])
        self.head = torch.nn.Linear(32, 48, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def test_linear_modules_of_layers_are_converted_by_the_recipe_and_the_head_is_not(fake_torchao: Path) -> None:
    module = _Model()
    weights = dict(module.named_parameters())
    assert convert_layers(module, "rowwise", "cpu") == 4
    kinds = {name: type(each).__name__ for name, each in module.named_modules()}
    assert kinds["head"] == "Linear"
    assert [kinds[f"layers.{n}.{name}"] for n in (0, 1) for name in ("up", "down")] == ["Float8Linear"] * 4
    config = module.layers[0].get_submodule("up").config
    assert (config.recipe, config.emulate) == ("rowwise", True)
    assert all(p is weights[name] for name, p in module.named_parameters())
    with pytest.raises(ValueError, match="_Model has no linear modules in layers"):
        convert_layers(module, "rowwise", "cpu")
    fake_torchao.write_text(_FAKE.replace("named_modules())", "named_modules())[:4]"))
    _forget()
    with pytest.raises(ValueError, match="torchao converted 1 of 4 linear modules"):
        convert_layers(_Model(), "tensorwise", "cpu")


# Linear modules for which the filter is true are swapped by the configuration's kind.
_FAKE_QUANTIZATION = """
import torch

def quantize_(module, config, filter_fn=None):
    for path, each in list(module.named_modules()):
        if isinstance(each, torch.nn.Linear) and filter_fn(each, path):
            each.__class__ = config.kind
            each.recipe = config.recipe
"""
_FAKE_FORMATS = """
import torch

class MXLinear(torch.nn.Linear):
    pass

class MXLinearConfig:
    kind = MXLinear

    def __init__(self, recipe):
        self.recipe = recipe

    @staticmethod
    def from_recipe_name(name):
        return MXLinearConfig(name)
"""


def test_products_scaled_by_blocks_are_torchaos_prototype(fake_torchao: Path) -> None:
    """Not run on hardware: what torchao is told, by the interface that its README documents."""
    prototype = fake_torchao.parent / "prototype"
    prototype.mkdir()
    (prototype / "__init__.py").touch()
    (fake_torchao.parent / "quantization.py").write_text(_FAKE_QUANTIZATION)
    (prototype / "mx_formats.py").write_text(_FAKE_FORMATS)
    module = _Model()
    weights = dict(module.named_parameters())
    assert convert_layers(module, "mx", "cpu") == 4
    assert type(module.head) is torch.nn.Linear
    assert module.layers[0].get_submodule("up").recipe == "mxfp8_emulated"
    assert all(p is weights[name] for name, p in module.named_parameters())
    (prototype / "mx_formats.py").write_text("")
    _forget()
    with pytest.raises(ValueError, match="no MXLinearConfig"):
        convert_layers(_Model(), "mx", "cpu")


@pytest.mark.full
@pytest.mark.parametrize(("recipe", "checkpointing"), [("tensorwise", "none"), ("rowwise", "selective")])
def test_emulated_products_differ_by_rounding_alone(recipe: str, checkpointing: str) -> None:
    pytest.importorskip("torchao", reason="products in fp8 are torchao's")
    torch.manual_seed(0)
    plain, x = _Model(), torch.randn(16, 32)
    module = copy.deepcopy(plain)
    convert_layers(module, recipe, "cpu")
    checkpoint_layers(module, checkpointing)
    found = []
    for each in (plain, module):
        each(x).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in each.parameters() if p.grad is not None]))
    # e4m3 rounds values by up to 2^-4, e5m2 gradients by up to 2^-3.
    assert 1e-4 < (found[1] - found[0]).norm() / found[0].norm() < 0.15
